"""Objectives about a given output: away from a reference other than the clean output, or towards a target."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.attacks.ascent import Attack
from resolute.attacks.ball import Images
from resolute.attacks.objective import Bound, output_of
from resolute.attacks.options import EqualByRepr
from resolute.errors import ConfigError
from resolute.images import image_sha256, read_image

Outputs = Float[Tensor, "n c1 sh sw"]


@runtime_checkable
class Reference(Protocol):
    """Where outputs are measured from: a function of the model and the clean images, called once a batch."""

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        """Return images of the size of the model's outputs, one for all or one an image."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class SavedOutput:
    """The model's own clean output as an 8-bit file holds it (Yue et al., ACM MM 2021).

    Rounding moves it a little from the clean output, so the distance has a gradient at the clean image.
    """

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        return torch.round(output_of(model, clean).clamp(0.0, 1.0) * 255.0) / 255.0


@final
@dataclasses.dataclass(frozen=True)
class Truth:
    """The ground truth of the attacked image, to be filled in by ``with_truth`` where there is one.

    The authors' code of I-FGSM for super-resolution raises the distance from it, not that of eq. 14.
    """

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        raise ConfigError(
            "this attack measures from the ground truth, and none is given: attack images that are shrunk from their "
            "originals (--ground-truth, or high_resolution = true), or choose another reference"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Tensor(EqualByRepr):
    images: Outputs

    def __repr__(self) -> str:
        sha256 = hashlib.sha256(self.images.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()[:16]
        return f"{type(self).__name__}({'x'.join(map(str, self.images.shape))}, sha256={sha256})"


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Given(_Tensor):
    """Images given as a tensor: the ground truth, or what the output is to become.

    Args:
        images: ``(1, 3, sh, sw)`` or ``(b, 3, sh, sw)``, in [0, 1], of the size of the model's outputs.

    Example:
        >>> Given(torch.zeros(1, 3, 4, 4)) == Given(torch.zeros(1, 3, 4, 4))
        True
    """

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        return self.images.to(clean)


@final
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OutputOf(_Tensor):
    """The model's output for other images: the attacked image shall come out as another one does.

    Args:
        images: ``(1, 3, h, w)`` or ``(b, 3, h, w)``, in [0, 1], of the size of the clean images.

    Example:
        >>> OutputOf(torch.zeros(1, 3, 4, 4)).images.shape
        torch.Size([1, 3, 4, 4])
    """

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        return output_of(model, self.images.to(clean))


@final
@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file, stretched to the size of the output.

    Args:
        path: of the file.
        sha256: of its pixels; ``Picture.read`` fills it in, so that records know one picture from another.
    """

    path: str
    sha256: str

    @staticmethod
    def read(path: Path | str) -> Picture:
        """Return the picture at ``path``.

        Raises:
            ImageError: there is none.
        """
        return Picture(str(path), image_sha256(read_image(path)))

    def __call__(self, model: nn.Module, clean: Images) -> Outputs:
        size = output_of(model, clean[:1]).shape[-2:]
        pixels = read_image(self.path).unsqueeze(0).to(clean)
        return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(0.0, 1.0)


@final
@dataclasses.dataclass(frozen=True)
class ReferenceShift:
    """Squared distance of the output from a reference, a mean over channels and pixels (eq. 14 with another reference).

    With ``SavedOutput`` or ``Truth`` it has a gradient at the clean image, so ``start='zero'`` works; note that the
    distance from the truth is raised by any loss of quality, not by instability alone.

    Example:
        >>> from resolute.attacks import IFGSM
        >>> from resolute.models import Bicubic
        >>> attack = IFGSM(epsilon=4 / 255, steps=2, start="zero", objective=ReferenceShift(SavedOutput()))
        >>> bool(attack(Bicubic(2), torch.rand(1, 3, 6, 6)).objective > 0)
        True
    """

    reference: Reference

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        return _distance(self.reference, model, clean, 1)


@final
@dataclasses.dataclass(frozen=True)
class TargetDistance:
    """Minus the squared distance of the output from a target, a mean over channels and pixels: the targeted attack.

    Args:
        target: what the output is to become, such as ``Picture.read(path)``, ``OutputOf(images)`` or ``Given(images)``.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import Bicubic
        >>> black = TargetDistance(Given(torch.zeros(1, 3, 12, 12)))
        >>> found = PGD(epsilon=4 / 255, steps=20, objective=black)(Bicubic(2), torch.full((1, 3, 6, 6), 0.5))
        >>> round(float(found.images.mean() * 255), 1)
        124.0
    """

    target: Reference

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        return _distance(self.target, model, clean, -1)


def with_truth(attack: Attack, truth: Outputs | None) -> Attack:
    """Return the attack with the ground truth filled in, where its objective is measured from that; else as it is.

    Example:
        >>> from resolute.attacks import IFGSM
        >>> attack = IFGSM(epsilon=4 / 255, objective=ReferenceShift(Truth()))
        >>> with_truth(attack, torch.zeros(1, 3, 8, 8)).objective.reference.images.shape
        torch.Size([1, 3, 8, 8])
    """
    if truth is None:
        return attack
    wanted, given = ReferenceShift(Truth()), ReferenceShift(Given(truth))

    def filled(value: object) -> object:
        if isinstance(value, Attack):
            return with_truth(value, truth)
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return given if value == wanted else value

    own = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    changed = {name: new for name, value in own.items() if (new := filled(value)) != value}
    return dataclasses.replace(attack, **changed) if changed else attack


def _distance(reference: Reference, model: nn.Module, clean: Images, sign: int) -> Bound:
    with torch.no_grad():
        wanted, output = reference(model, clean).float(), output_of(model, clean)
    if wanted.shape[1:] != output.shape[1:] or wanted.shape[0] not in (1, output.shape[0]):
        raise ValueError(
            f"the output is {tuple(output.shape)} and the image to compare it with {tuple(wanted.shape)}; "
            "give one of the size of the output"
        )

    def distance(x: Images) -> Float[Tensor, " b"]:
        return sign * (output_of(model, x) - wanted).square().flatten(1).mean(dim=1)

    return distance
