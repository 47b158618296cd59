"""Which pixels of an output to trust: those around which it is flat enough, calibrated on photographs with truth.

Conformal risk control (Angelopoulos et al., ICLR 2024) finds how flat that is. With n photographs whose loss never
falls with the threshold and is at most 1, the largest threshold t with ``(sum of the losses at t + 1) / (n + 1) <= a``
has an expected loss of at most a on one more photograph that is exchangeable with them, whatever the model. The loss is
the share of the trusted pixels whose error exceeds a bound, at the worst threshold up to t. Masks of trust for
super-resolution are due to Adame et al. (arXiv 2502.09664).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import final

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from resolute.certificates.gap import least_photographs
from resolute.defences.wrappers import gaussian
from resolute.errors import ConfigError, ModelWarning
from resolute.files import read_regular, write_text
from resolute.images import from_uint8, to_uint8
from resolute.models.base import Restorer, device_of, frozen, name_of
from resolute.models.weights import sha256_of
from resolute.resize import downscale, mod_crop
from resolute.runtime import full_float32

Image = Float[Tensor, "3 h w"]
Output = Float[Tensor, "3 sh sw"]
Map = Float[Tensor, "sh sw"]
Mask = Bool[Tensor, "sh sw"]

# Of the steepness around a pixel, in levels of 255 a pixel; fixed before any photograph is seen.
THRESHOLDS = tuple(0.125 * 2 ** (step / 6) for step in range(55))
# A smaller share of an output is too little to be called trusted.
LEAST_SHARE = 0.01
# Losses are kept in so many parts of 1, rounded up.
_PARTS = 10_000

_NEW = "make one of high-resolution photographs with --calibrate FOLDER"


def steepness_map(output: Output, scale: int) -> Map:
    """Return how steep an output is around each of its pixels, in levels of 255 a pixel.

    That is the length of its gradient, by central differences, as a mean over the channels and a Gaussian of half a
    low-resolution pixel.

    Example:
        >>> ramp = torch.arange(32.0).repeat(3, 32, 1) / 255
        >>> round(steepness_map(ramp, 4)[16, 16].item(), 3)
        1.0
    """
    padded = F.pad(output[None].clamp(0, 1) * 255, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return gaussian((across.square() + down.square()).sqrt(), scale / 2)[0].mean(dim=0)


def error_map(output: Output, truth: Output) -> Map:
    """Return how far each pixel of an output, as saved in 8 bits, is from the truth, in levels of 255.

    That is the largest difference of its channels.
    """
    return (from_uint8(to_uint8(output)).to(truth) - truth).abs().amax(dim=0) * 255


def beyond(output: Output, truth: Output, bound: float) -> Mask:
    """Return which pixels have an error of more than so many levels of 255."""
    # What an error of whole levels loses in float32 is no error.
    return error_map(output, truth) > bound + 1e-3


def losses_of(output: Output, truth: Output, bound: float, scale: int) -> tuple[float, ...]:
    """Return the loss of a photograph at each of ``THRESHOLDS``; 1 where the output is not finite."""
    if not bool(output.isfinite().all()):
        return (1.0,) * len(THRESHOLDS)
    return worst_shares(steepness_map(output, scale), beyond(output, truth, bound))


def worst_shares(steepness: Map, wrong: Mask) -> tuple[float, ...]:
    """Return which share of the pixels up to each of ``THRESHOLDS`` is wrong, at the worst threshold so far.

    A mask of less than ``LEAST_SHARE`` of the output counts as empty, and has nothing wrong in it.

    Example:
        >>> steepness = torch.tensor([[1.0, 1.0, 2.0, 99.0]])
        >>> shares = worst_shares(steepness, torch.tensor([[True, False, False, True]]))
        >>> shares[0], shares[18], shares[-1]
        (0.0, 0.5, 0.5)
    """
    place = torch.bucketize(steepness.double().flatten(), torch.tensor(THRESHOLDS).double())
    trusted, failed = (
        np.cumsum(np.bincount(chosen.numpy(), minlength=len(THRESHOLDS) + 1))[:-1]
        for chosen in (place, place[wrong.flatten()])
    )
    shares = np.where(trusted >= LEAST_SHARE * place.numel(), failed / np.maximum(trusted, 1), 0.0)
    worst = np.maximum.accumulate(shares)
    return tuple((np.ceil(worst * _PARTS * (1 - 1e-12)) / _PARTS).tolist())


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trust:
    """A calibration of which pixels to trust: the losses of photographs with truth.

    Attributes:
        model: what made the outputs.
        fingerprint: of the model's weights and of how steepness and losses are taken, see ``fingerprint_of``.
        photographs: which they are, in words.
        bound: of the error of a trusted pixel, in levels of 255.
        losses: of each photograph, at each of ``THRESHOLDS``.
    """

    model: str
    fingerprint: str
    photographs: str
    bound: float
    losses: tuple[tuple[float, ...], ...]

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        return sha256_of(self.fingerprint, self.photographs, self.bound, sorted(self.losses))

    def threshold(self, rate: float) -> float:
        """Return up to which steepness pixels are trusted; 0 where none are.

        Args:
            rate: the expected share of the trusted pixels of a photograph whose error may exceed the bound.

        Raises:
            ConfigError: the rate is none, or the photographs are too few for it.

        Example:
            >>> ramps = ((0.0,) * 30 + (0.5,) * 25,) * 9
            >>> made = Trust(model="m", fingerprint="f", photographs="nine", bound=16, losses=ramps)
            >>> made.threshold(0.1) == THRESHOLDS[29]
            True
        """
        needed, there = least_photographs(rate), len(self.losses)
        if there < needed:
            raise ConfigError(
                f"a rate of {100 * rate:g} % takes {needed} photographs with truth, and the calibration "
                f"({self.photographs}) has {there}; add some, or ask for a rate of {100 / (there + 1):.3g} % or more"
            )
        risks = (np.sum(self.losses, axis=0) + 1) / (there + 1)
        kept = int((risks <= rate * (1 + 1e-12)).sum())
        return THRESHOLDS[kept - 1] if kept else 0.0

    def mask(self, output: Output, scale: int, rate: float) -> Mask:
        """Return which pixels of an output to trust at a rate; none where those are less than ``LEAST_SHARE``."""
        threshold = self.threshold(rate)
        if not threshold or not bool(output.isfinite().all()):
            return torch.zeros(output.shape[-2:], dtype=torch.bool)
        mask = steepness_map(output, scale).double() <= threshold
        return mask if float(mask.double().mean()) >= LEAST_SHARE else torch.zeros_like(mask)

    def require(self, model: Restorer) -> None:
        """Raise ``ConfigError`` unless it was made with this model."""
        if self.fingerprint != fingerprint_of(model):
            raise ConfigError(
                f"the calibration is of {self.model[:80]} with other weights than {name_of(model)}; {_NEW}"
            )

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        content = dataclasses.asdict(self)
        content["losses"] = [[round(loss * _PARTS) for loss in one] for one in self.losses]
        write_text(path, json.dumps(content, separators=(",", ":")) + "\n")

    @staticmethod
    def read(path: Path) -> Trust:
        """Read what ``write`` wrote.

        Raises:
            ConfigError: it cannot be read, or is no such calibration.
        """
        try:
            content = json.loads(read_regular(path).decode())
            content["losses"] = [[loss / _PARTS for loss in one] for one in content["losses"]]
            found = pydantic.TypeAdapter(Trust).validate_python(content)
            if not (0 < found.bound < 255 and all(map(_is_curve, found.losses))):
                raise ValueError
            return found
        except OSError as error:
            raise ConfigError(f"cannot read the calibration {path}: {error.strerror}; {_NEW}") from None
        # Also what is no JSON, or nested too deeply, and what pydantic refuses.
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise ConfigError(f"{path} is no calibration of trust; {_NEW}") from None


def _is_curve(losses: Sequence[float]) -> bool:
    rising = all(a <= b for a, b in itertools.pairwise(losses))
    return len(losses) == len(THRESHOLDS) and rising and losses[0] >= 0 and losses[-1] <= 1


def fingerprint_of(model: Restorer) -> str:
    """Return a hash of all that determines a loss but the photograph and the bound: a calibration is for one model."""
    card = model.card or model.describe(type(model).__name__)
    return sha256_of("trust", card.sha256 or card.name, card.architecture, card.scale, THRESHOLDS, LEAST_SHARE)[:24]


def find_trust(model: Restorer, bound: float, files: Sequence[Path]) -> Trust | None:
    """Return the first calibration among files that is of a model and a bound; None where none is.

    Damaged files are left out with a ``ModelWarning``.
    """
    wanted = fingerprint_of(model), bound
    for path in files:
        try:
            made = Trust.read(path)
        except ConfigError as error:
            warnings.warn(f"left out: {error}", ModelWarning, stacklevel=2)
            continue
        if (made.fingerprint, made.bound) == wanted:
            return made
    return None


def calibrate_trust(
    model: Restorer,
    photographs: Iterable[Image],
    name: str,
    *,
    bound: float = 16,
    progress: Callable[[int], None] | None = None,
) -> Trust:
    """Measure the losses of a model on photographs, shrunk as MATLAB does and rounded to 8 bits.

    Args:
        model: with its defences.
        photographs: of high resolution, in [0, 1], of the kind that the model will see, and none that it was trained
            on.
        name: what they are, in words.
        bound: of the error of a trusted pixel, in levels of 255.
        progress: called with the number of photographs done.

    Raises:
        ValueError: one is smaller than the scale.

    Example:
        >>> from resolute.models import Bicubic
        >>> made = calibrate_trust(Bicubic(2), torch.rand(9, 3, 16, 16) / 20, "dim noise")
        >>> made.mask(torch.zeros(3, 8, 8), 2, rate=0.1).all()
        tensor(True)
    """
    losses: list[tuple[float, ...]] = []
    for photograph in photographs:
        truth = mod_crop(to_uint8(photograph), model.scale)
        low = from_uint8(downscale(truth, model.scale))
        with torch.no_grad(), full_float32(), frozen(model):
            output = model(low[None].to(device_of(model)))[0].cpu()
        losses.append(losses_of(output, from_uint8(truth), bound, model.scale))
        if progress is not None:
            progress(len(losses))
    return Trust(
        model=name_of(model), fingerprint=fingerprint_of(model), photographs=name, bound=bound, losses=tuple(losses)
    )
