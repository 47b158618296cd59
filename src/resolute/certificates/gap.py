"""Was a score gamed? How far a metric's score exceeds a defended one, held against honest photographs.

A change made to raise a score leans on details that compression, shrinking or noise take away, so that the score falls
once they are gone. How far it falls for honest photographs is measured once, and one-sided split conformal prediction
(Vovk et al., 2005) turns the gap of a submission into a p-value, the largest over the sources of those photographs, so
that it holds for a photograph of any of them. It says how rarely an honest photograph has such a gap, and nothing of
how many gamed images are found: that is empirical.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from resolute.certificates.median import DenoisedScorer, certify
from resolute.defences.purify import purifier
from resolute.errors import ConfigError, ImageError
from resolute.files import read_regular, write_text
from resolute.measure.fidelity import psnr_rgb, ssim_y
from resolute.models.base import Scorer, frozen
from resolute.models.fitted import FittedScorer, resized, size_within
from resolute.models.weights import sha256_of

Image = Float[Tensor, "3 h w"]
Scores = Callable[[Tensor], Tensor]
Other = Float[Tensor, "3 other_h other_w"]

# A change of at most 4/255 a sample has this PSNR or more: nobody sees a gain there.
UNSEEN = 36.0

_NOISE, _SIZE = "noise-", "size-"
_NEW = "make one of honest photographs of the kind that is submitted, with --calibrate FOLDER"


@final
@dataclasses.dataclass(frozen=True)
class Gap:
    """What a metric says of an image, alone and defended.

    Attributes:
        undefended: what the metric alone says.
        defended: what it says behind the defence.
        lower_better: whether a lower score means better quality.
        seed: of the noise; 0 where there is none.
    """

    undefended: float
    defended: float
    lower_better: bool = False
    seed: int = 0

    @property
    def value(self) -> float:
        """By how much the defence takes quality away; infinite where a score is not finite, the worst there is.

        To six digits, as a calibration's file holds the gaps of photographs: equal gaps are to be equal there too.

        Example:
            >>> Gap(80.0, 50.0).value, Gap(80.0, 50.0, lower_better=True).value, Gap(math.nan, 50.0).value
            (30.0, -30.0, inf)
        """
        found = (-1 if self.lower_better else 1) * (self.undefended - self.defended)
        return _short(found) if math.isfinite(found) else math.inf


@final
@dataclasses.dataclass(frozen=True)
class Screening:
    """How a score is defended in an audit, and the size at which both scores are taken.

    Attributes:
        defence: purifiers by their names (see ``defences.purify``), and ``size-SHARE`` for the image shrunk to a share
            of that size, joined by ``+``: their scores are averaged. Or ``noise-SIGMA``, the median under noise.
        fit: shrink larger images until their longer side has so many pixels; 0 for never.
        samples: noisy copies behind that median.

    Raises:
        ConfigError: no such defence.

    Example:
        >>> from resolute.models import as_scorer
        >>> sharpness = as_scorer(lambda x: x.diff(dim=-1).abs().mean(dim=(1, 2, 3)), name="sharpness")
        >>> gap = Screening("blur-3+size-0.8")(sharpness, torch.rand(3, 32, 32))
        >>> gap.undefended > gap.defended
        True
    """

    defence: str = "jpeg-75+size-0.85"
    fit: int = 384
    samples: int = 32

    def __post_init__(self) -> None:
        if self.fit < 0 or self.samples < 1:
            raise ConfigError(f"fit is a size or 0, and samples one or more, not {self.fit} and {self.samples}")
        for name in [] if self.sigma is not None else self.defence.split("+"):
            if not name.startswith(_SIZE):
                purifier(name)
            elif not 0 < _number(name, _SIZE) < 1:
                raise ConfigError(f"size-SHARE keeps a share between 0 and 1 of the sides, as size-0.85, not {name}")
        if self.sigma is not None and not 0 < self.sigma <= 10:
            raise ConfigError(f"the noise of a defence is above 0 and at most 10, as noise-0.05, not {self.defence}")

    @property
    def sigma(self) -> float | None:
        """Standard deviation of the noise; None where there is none."""
        return _number(self.defence, _NOISE) if self.defence.startswith(_NOISE) else None

    @property
    def smallest(self) -> float:
        """Share of the sides that the metric sees at least."""
        return min([1.0, *(_number(name, _SIZE) for name in self.defence.split("+") if name.startswith(_SIZE))])

    def alone(self, metric: Scorer) -> Scorer:
        """Return the metric at the size of this screening."""
        return FittedScorer(metric, self.fit) if self.fit else metric

    def defended(self, metric: Scorer) -> Scores:
        """Return the defended score of images, with gradients; with noise the one without it."""
        if self.sigma is not None:
            return self.alone(metric)
        parts = [self._part(metric, name) for name in self.defence.split("+")]
        return lambda x: torch.stack([part(x) for part in parts]).mean(dim=0)

    def _part(self, metric: Scorer, name: str) -> Scores:
        if not name.startswith(_SIZE):
            return self.alone(DenoisedScorer(metric, purifier(name)).eval())
        share = _number(name, _SIZE)

        def smaller(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
            longest = max(x.shape[-2:])
            size = size_within(x, round(share * (min(longest, self.fit) if self.fit else longest)))
            return metric(x if size is None else resized(x, size))

        return smaller

    def side(self, height: int, width: int) -> int:
        """Return the longer side, in pixels, at which the metric scores an image.

        Example:
            >>> Screening(fit=384).side(500, 768), Screening(fit=384).side(200, 300), Screening(fit=0).side(500, 768)
            (384, 300, 768)
        """
        longest = max(height, width)
        return min(longest, self.fit) if self.fit else longest

    def require_room(self, metric: Scorer, image: Image) -> None:
        """Raise ``ImageError`` where the metric cannot score an image at the smallest size of this screening."""
        height, width = size_within(image, self.fit) or (image.shape[-2], image.shape[-1])
        if self.smallest * min(height, width) < metric.smallest:
            name = "the metric" if metric.card is None else metric.card.name
            needs = math.ceil(metric.smallest / self.smallest)
            remedy = "; raise --fit" if min(image.shape[-2:]) >= needs else ""
            raise ImageError(f"it is too small: to audit {name} takes {needs} pixels a side{remedy}")

    def __call__(self, metric: Scorer, image: Image, *, seed: int | None = None) -> Gap:
        """Score an image, alone and defended.

        Args:
            metric: without a defence.
            image: in [0, 1].
            seed: of the noise, to repeat a run; None to let the operating system draw one.

        Raises:
            ImageError: the image is too small for the metric.
        """
        self.require_room(metric, image)
        with frozen(metric), torch.no_grad():
            undefended = float(self.alone(metric)(image[None]))
            if self.sigma is None:
                return Gap(undefended, float(self.defended(metric)(image[None])), metric.lower_better)
        made = certify(
            metric, image, self.sigma, 0.0, self.samples, 0.5, seed=seed, size=size_within(image, self.fit),
            trusted=True,
        )  # fmt: skip
        assert made.smoothing.seed is not None
        return Gap(undefended, made.score, metric.lower_better, made.smoothing.seed)

    def fingerprint(self, metric: Scorer) -> str:
        """Return a hash of all that determines a gap but the image: a calibration is for one metric and screening."""
        card = metric.card or metric.describe(type(metric).__name__)
        samples = self.samples if self.sigma is not None else 0
        return sha256_of(card.sha256 or card.name, card.architecture, self.defence, self.fit, samples)[:24]


def _number(name: str, prefix: str) -> float:
    try:
        return float(name.removeprefix(prefix))
    except ValueError:
        return math.nan


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The gaps of honest photographs of one or more sources, that those of submissions are held against.

    Those of several sources are joined by ``dataclasses.replace(one, gaps=one.gaps | other.gaps)``, with the smaller
    ``smallest`` of both.

    Attributes:
        metric: what was screened.
        fingerprint: of the metric and the screening, see ``Screening.fingerprint``.
        screening: how both scores were taken.
        smallest: least longer side, in pixels, at which a photograph was scored; smaller images are not flagged.
        gaps: one a photograph, by the name of the source.
    """

    metric: str
    fingerprint: str
    screening: Screening
    smallest: int
    gaps: Annotated[dict[str, tuple[float, ...]], pydantic.Field(min_length=1)]

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        gaps = [(name, [repr(gap) for gap in sorted(own)]) for name, own in sorted(self.gaps.items())]
        return sha256_of(self.fingerprint, self.smallest, gaps)

    @property
    def photographs(self) -> str:
        """Which they are, in words."""
        return ", ".join(f"{len(own)} of {name}" for name, own in self.gaps.items())

    def nearest(self, gap: float) -> str:
        """Return the source of whose photographs the largest share has a gap as large as this one, or larger."""
        return max(self.gaps, key=lambda name: self._p_value(name, gap))

    def at_least(self, gap: float) -> int:
        """Return how many photographs of the nearest source have a gap as large as this one, or larger."""
        return sum(one >= gap for one in self.gaps[self.nearest(gap)])

    def p_value(self, gap: float) -> float:
        """Return ``(1 + #{gaps >= gap}) / (n + 1)``, the largest over the sources.

        For an honest photograph that is exchangeable with those n of any one source it is at most p with probability
        at most p, whatever the metric, the distribution of the gaps and the other sources.

        Example:
            >>> made = Calibration(
            ...     metric="m", fingerprint="f", screening=Screening(), smallest=1,
            ...     gaps={"soft": (1.0, 2.0, 3.0), "sharp": (4.0, 5.0, 6.0)},
            ... )
            >>> made.p_value(4.5), made.nearest(4.5), made.p_value(9.0)
            (0.75, 'sharp', 0.25)
        """
        return self._p_value(self.nearest(gap), gap)

    def _p_value(self, name: str, gap: float) -> float:
        own = self.gaps[name]
        return (1 + sum(one >= gap for one in own)) / (len(own) + 1)

    def threshold(self, rate: float) -> float:
        """Return the largest gap that is not flagged at a rate of false alarms.

        Raises:
            ConfigError: the photographs of a source are too few for the rate.
        """
        needed = least_photographs(rate)
        for name, own in self.gaps.items():
            if len(own) < needed:
                raise ConfigError(
                    f"a false-alarm rate of {100 * rate:g} % takes {needed} honest photographs, and {name} has "
                    f"{len(own)}; add some, or ask for a rate of {100 / (len(own) + 1):.3g} % or more"
                )
        return max(_largest_kept(own, rate) for own in self.gaps.values())

    def require(self, metric: Scorer) -> None:
        """Raise ``ConfigError`` unless it was made with this metric."""
        if self.fingerprint != self.screening.fingerprint(metric):
            name = "the metric" if metric.card is None else metric.card.name
            raise ConfigError(
                f"the calibration is of {self.metric[:80]} with other weights or settings than {name}; {_NEW}"
            )

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        content = dataclasses.asdict(self)
        # JSON has no infinity, and hundredths of a score say enough, but for scores of tiny ranges.
        content["gaps"] = {
            name: [_short(gap) if math.isfinite(gap) else None for gap in own] for name, own in self.gaps.items()
        }
        write_text(path, json.dumps(content) + "\n")

    @staticmethod
    def read(path: Path) -> Calibration:
        """Read what ``write`` wrote.

        Raises:
            ConfigError: it cannot be read, or is no calibration.
        """
        try:
            content = json.loads(read_regular(path).decode())
            gaps = content["gaps"].items()
            content["gaps"] = {name: [math.inf if gap is None else gap for gap in own] for name, own in gaps}
            found = pydantic.TypeAdapter(Calibration).validate_python(content)
            if not all(gap > -math.inf for own in found.gaps.values() for gap in own):
                raise ValueError
            return found
        except OSError as error:
            raise ConfigError(f"cannot read the calibration {path}: {error.strerror}; {_NEW}") from None
        # Also what is no JSON, or nested too deeply, and what pydantic refuses.
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise ConfigError(f"{path} is no calibration; {_NEW}") from None


def _short(gap: float) -> float:
    return float(f"{gap:.6g}")


def _largest_kept(gaps: Sequence[float], rate: float) -> float:
    allowed = math.floor(rate * (len(gaps) + 1) * (1 + 1e-12)) - 1
    return sorted(gaps, reverse=True)[allowed] if allowed < len(gaps) else -math.inf


def least_photographs(rate: float) -> int:
    """Return how many honest photographs it takes before any gap can be flagged at a rate of false alarms.

    Raises:
        ConfigError: the rate is not between 0 and 1.

    Example:
        >>> least_photographs(0.01), least_photographs(0.05)
        (99, 19)
    """
    if not 0 < rate < 1:
        raise ConfigError(f"a rate lies between 0 and 1, such as 0.01, not {rate:g}")
    return math.ceil(1 / rate * (1 - 1e-12)) - 1


def calibrate(
    metric: Scorer,
    photographs: Iterable[Image],
    name: str,
    screening: Screening = Screening(),
    *,
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Measure the gaps of honest photographs.

    Args:
        metric: without a defence.
        photographs: in [0, 1], of the kind that is submitted, and none that the metric was trained on.
        name: of their source.
        screening: how scores are defended.
        seed: of the noise, if any.
        progress: called with the number of photographs done.

    Raises:
        ImageError: one is too small for the metric.

    Example:
        >>> from resolute.models import as_scorer
        >>> sharpness = as_scorer(lambda x: x.diff(dim=-1).abs().mean(dim=(1, 2, 3)), name="sharpness")
        >>> made = calibrate(sharpness, torch.rand(19, 3, 16, 16), "noise", Screening("blur-3"))
        >>> audit(sharpness, torch.zeros(3, 16, 16), made, rate=0.05).flagged
        False
    """
    gaps, sides = list[float](), list[int]()
    for image in photographs:
        gaps.append(screening(metric, image, seed=seed).value)
        sides.append(screening.side(*image.shape[-2:]))
        if progress is not None:
            progress(len(gaps))
    called = type(metric).__name__ if metric.card is None else metric.card.name
    return Calibration(
        metric=called, fingerprint=screening.fingerprint(metric), screening=screening, smallest=min(sides, default=0),
        gaps={name: tuple(gaps)},
    )  # fmt: skip


@final
@dataclasses.dataclass(frozen=True)
class Gain:
    """What a submission gained over its reference, and how much of a difference there is to see.

    Attributes:
        reference: scores of the reference.
        undefended: gain of the metric's own score, towards better quality.
        defended: gain of the defended score.
        psnr: over all channels, in dB; infinite where both are equal.
        ssim: on Y.
        unseen: whether the gain exceeds the gap that is flagged, where the PSNR is 36 dB or more.
    """

    reference: Gap
    undefended: float
    defended: float
    psnr: float
    ssim: float
    unseen: bool


@final
@dataclasses.dataclass(frozen=True)
class Finding:
    """What an audit says of one image.

    Attributes:
        gap: its scores.
        source: of the honest photographs, the one that says most for it.
        at_least: photographs of that source with a gap as large, or larger.
        p: conformal p-value of the gap.
        rate: of false alarms that is allowed.
        threshold: the largest gap that is not flagged at that rate.
        unlike: whether it is smaller than every honest photograph, so that p says nothing of it.
        flagged: whether p is at most the rate, unless it is unlike them.
        gain: over the reference; None where there is none.
    """

    gap: Gap
    source: str
    at_least: int
    p: float
    rate: float
    threshold: float
    unlike: bool
    flagged: bool
    gain: Gain | None = None


def audit(
    metric: Scorer,
    image: Image,
    calibration: Calibration,
    reference: Other | None = None,
    *,
    rate: float = 0.01,
    seed: int | None = None,
) -> Finding:
    """Tell whether an image's score looks gamed.

    Args:
        metric: the one that the calibration is of.
        image: in [0, 1].
        calibration: gaps of honest photographs.
        reference: the original, of the same size.
        rate: of honest photographs that may be flagged.
        seed: of the noise, if any; None to let the operating system draw one.

    Raises:
        ConfigError: the calibration is of another metric, or too small for the rate.
        ImageError: the image is too small for the metric, or the reference has another size.

    Example:
        >>> from resolute.models import as_scorer
        >>> sharpness = as_scorer(lambda x: x.diff(dim=-1).abs().mean(dim=(1, 2, 3)), name="sharpness")
        >>> made = calibrate(sharpness, torch.rand(19, 3, 16, 16) / 2, "noise", Screening("blur-3"))
        >>> found = audit(sharpness, torch.rand(3, 16, 16).round(), made, rate=0.05)
        >>> found.flagged, found.p
        (True, 0.05)
    """
    calibration.require(metric)
    threshold = calibration.threshold(rate)
    gap = calibration.screening(metric, image, seed=seed)
    gain = None
    if reference is not None:
        gain = _gain(metric, image, gap, reference, calibration.screening, threshold)
    unlike = calibration.screening.side(*image.shape[-2:]) < calibration.smallest
    return Finding(
        gap, calibration.nearest(gap.value), calibration.at_least(gap.value), calibration.p_value(gap.value), rate,
        threshold, unlike, gap.value > threshold and not unlike, gain,
    )  # fmt: skip


def _gain(metric: Scorer, image: Image, gap: Gap, reference: Other, screening: Screening, threshold: float) -> Gain:
    require_same_size(image, reference)
    before = screening(metric, reference, seed=gap.seed)
    sign = -1 if metric.lower_better else 1
    gained = sign * (gap.undefended - before.undefended)
    psnr = float(psnr_rgb(image[None], reference[None]))
    return Gain(
        before, gained, sign * (gap.defended - before.defended), psnr,
        float(ssim_y(image[None], reference[None], border=0)), unseen=psnr >= UNSEEN and gained > max(threshold, 0.0),
    )  # fmt: skip


def require_same_size(image: Image, reference: Other) -> None:
    """Raise ``ImageError`` where an image and its reference differ in size."""
    if image.shape != reference.shape:
        sizes = [f"{x.shape[-1]} x {x.shape[-2]}" for x in (image, reference)]
        raise ImageError(f"it has {sizes[0]} pixels and its reference {sizes[1]}; give the original at the same size")


def find_calibration(metric: Scorer, screening: Screening, files: Sequence[Path]) -> Calibration:
    """Return the first calibration among files that is of a metric and a screening.

    Raises:
        ConfigError: none is, or a file is damaged.
    """
    wanted = screening.fingerprint(metric)
    found = next((made for path in files if (made := Calibration.read(path)).fingerprint == wanted), None)
    if found is None:
        name = "the metric" if metric.card is None else metric.card.name
        size = f"{screening.fit} pixels a side" if screening.fit else "full size"
        raise ConfigError(f"there is no calibration of {name} with {screening.defence} at {size}; {_NEW}")
    return found
