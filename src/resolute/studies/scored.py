"""A quality score behind a defence, and the certificate that comes with a smoothed one: cells, records, answers."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from resolute.certificates.certificate import Certificate, Smoothing, bounds_of
from resolute.certificates.median import DenoisedScorer, certify, prepared, width_below
from resolute.defences.dms_iqa import score_range
from resolute.errors import ConfigError, TooSmallError
from resolute.images import image_sha256
from resolute.models.base import Scorer
from resolute.studies.record import Record, record_key
from resolute.studies.study import Bench, Cell, Progress, about

Image = Float[Tensor, "3 h w"]

# Shares of the metric's range for which the largest safe radius is reported, by the field of the record.
SHARES = {"safe_1": 0.01, "safe_5": 0.05}
# A pass through a denoiser in units of a pass through the small metric.
DENOISING = 6
# Steps of curves over the radius, which end at three standard deviations of the noise.
STEPS = 60


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRecord(Record):
    """What a metric says of one image, alone or behind a defence; of a smoothed score with the samples behind it.

    An l2 radius is one of the image as given, whose width and height these are.

    Attributes:
        defence: what the metric stands behind; empty where the study has one only.
        score: the defended score, a sampled median where it is smoothed; None where it is not finite.
        undefended: what the metric alone says.
        mos: mean opinion score of people; None where there is none.
        smoothing: how the score was smoothed; None where it is not.
        samples: scores behind the median, in the order drawn; none where one of them was not finite.
        non_finite: samples that were NaN or infinite.
        size: (height, width) to which the image was resized before the noise; None where it was not.
        lengthening: by how much that lengthens a change of the image at most.
        scorer: the metric's card.
        low: end of the metric's proven range; None where nothing is proven.
        high: end of the metric's proven range; None where nothing is proven.
        span: length of the range, the proven one or else the usual one; None where there is none.
        epsilon: l2 radius that was asked for first, on the scale of [0, 1]; others need no new samples.
        lower: end of the interval at that radius; None where it is infinite or nothing is certified.
        upper: end of the interval at that radius; None where it is infinite or nothing is certified.
        safe_1: largest radius at which the true median provably moves by at most 1 % of the span; None where there is
            no span, or the samples are too few to prove it at any radius.
        safe_5: the same for 5 %.
    """

    view: ClassVar[str] = "scores"

    defence: str = ""
    score: float | None
    undefended: float | None
    mos: float | None = None
    smoothing: Smoothing | None = None
    samples: tuple[float, ...] = ()
    non_finite: int = 0
    size: tuple[int, int] | None = None
    lengthening: float = 1.0
    scorer: dict[str, Any]
    low: float | None = None
    high: float | None = None
    span: float | None = None
    epsilon: float = 0.0
    lower: float | None = None
    upper: float | None = None
    safe_1: float | None = None
    safe_5: float | None = None

    @property
    def lower_better(self) -> bool:
        """Whether a lower score means better quality."""
        return bool(self.scorer.get("lower_better"))

    @property
    def metric(self) -> str:
        """Name of what was judged: the metric, with what stands in front of it."""
        return str(self.scorer.get("name", self.model))

    @property
    def metric_alone(self) -> str:
        """Name of the metric without what stands in front of it."""
        return self.metric.partition(" behind ")[0]

    @functools.cached_property
    def certificate(self) -> Certificate | None:
        """The certificate, from the samples; None where the score is not smoothed."""
        if self.smoothing is None:
            return None
        # Where a sample was not finite, the certificate abstains whatever the others are.
        scores = np.array(self.samples or [math.nan] * max(1, self.non_finite))
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        bounds = bounds_of(
            np.sort(scores), self.epsilon, self.smoothing, low, high, norm=self.lengthening, abstain=self.non_finite > 0
        )
        return Certificate(
            score=math.nan if self.score is None else self.score, bounds=bounds, smoothing=self.smoothing,
            samples=len(scores), non_finite=self.non_finite, size=self.size or (self.height, self.width),
            resized=self.size is not None,
            norm=self.lengthening, image_sha256=self.pixels, scorer=self.scorer, low=low, high=high, scores=scores,
        )  # fmt: skip

    def at(self, epsilon: float) -> Certificate | None:
        """Return the certificate at another radius, from the same samples."""
        found = self.certificate
        return None if found is None else dataclasses.replace(found, bounds=found.at(epsilon))

    def interval(self, epsilon: float) -> tuple[float | None, float | None]:
        """Return the certified interval at a radius; None for an infinite end and where nothing is certified."""
        found = self.certificate
        if found is None or found.abstained:
            return None, None
        bounds = found.at(epsilon)
        return finite(bounds.lower), finite(bounds.upper)

    def radii(self) -> list[float]:
        """Return the radii of a curve."""
        assert self.smoothing is not None
        return [self.smoothing.sigma / self.lengthening * step * 3 / STEPS for step in range(STEPS + 1)]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """A metric behind one defence, loaded, and how its score is sampled.

    Attributes:
        defence: what it is called.
        bare: the metric alone.
        scorer: the metric behind its denoiser or purifier, or the metric itself.
        smoothing: how the score is smoothed; None where it is not.
        width: stop sampling once the interval is no wider than this; 0 to draw all samples.
        epsilon: radius that is asked for.
        trusted: as for ``certify``.
    """

    defence: str
    bare: Scorer
    scorer: Scorer
    smoothing: Smoothing | None
    width: float = 0.0
    epsilon: float = 0.0
    trusted: bool = False

    @functools.cached_property
    def identity(self) -> tuple[object, ...]:
        """All that determines its scores."""
        card = self.scorer.card
        assert card is not None
        # The radius decides when sampling stops, and nothing else.
        stop = (self.width, self.epsilon) if self.width > 0 else None
        return card.sha256, repr(card.architecture), card.low, card.high, repr(self.smoothing), stop

    @property
    def undefended(self) -> bool:
        """Whether there is no defence at all."""
        return self.scorer is self.bare and self.smoothing is None

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise; 0 where the score is not smoothed."""
        return self.smoothing.sigma if self.smoothing is not None else 0.0

    @property
    def cost(self) -> float:
        """Passes through the metric that one score costs."""
        denoised = isinstance(self.scorer, DenoisedScorer)
        return (DENOISING if denoised else 1) * (self.smoothing.n if self.smoothing is not None else 1) + 1

    def certify(
        self,
        bench: Bench,
        image: Image,
        size: tuple[int, int] | None,
        seed: int | None,
        progress: Callable[[int, int], None],
    ) -> Certificate:
        """Certify the smoothed score of an image under noise of a seed, or of one drawn now."""
        made = self.smoothing
        assert made is not None
        stop = width_below(self.width) if self.width > 0 else None
        return certify(
            bench.place(self.scorer), image.to(bench.device), made.sigma, self.epsilon, made.n, made.alpha, seed=seed,
            noise=made.noise, deployed=made.deployed, size=size, stop=stop, precision=made.precision,
            trusted=self.trusted, progress=progress,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCell(Cell):
    """One contestant on one image."""

    contestant: Contestant
    name: str
    image: Image
    size: tuple[int, int] | None
    mos: float | None

    @staticmethod
    def of(
        contestant: Contestant,
        name: str,
        image: Image,
        *,
        size: tuple[int, int] | None = None,
        mos: float | None = None,
    ) -> ScoreCell:
        """Return the cell that asks what a contestant says of an image; before noise it is resized to a ``size``.

        Raises:
            TooSmallError: for the metric.
        """
        height, width = require_room(contestant.bare, name, image, size)
        return ScoreCell(
            key=record_key("score", contestant.defence, contestant.identity, name, image_sha256(image), size, mos),
            title=f"{name}, {contestant.defence}" if contestant.defence else name,
            like=("score", contestant.defence, contestant.identity),
            shape=(height, width),
            cost=float(height * width) * contestant.cost,
            contestant=contestant,
            name=name,
            image=image,
            size=size,
            mos=mos,
        )


def require_room(metric: Scorer, name: str, image: Image, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (height, width) at which a metric sees an image that is resized to a ``size`` first, if to any.

    Raises:
        TooSmallError: for the metric.
    """
    own = (image.shape[-2], image.shape[-1])
    height, width = size or own
    if min(height, width) < metric.smallest:
        called = "the metric" if metric.card is None else metric.card.name
        needs = f"{called} needs {metric.smallest} pixels a side"
        if min(own) >= metric.smallest:
            raise TooSmallError(f"{name} shrunk to {width} x {height} is too small: {needs}; raise --fit")
        raise TooSmallError(f"{name} is too small: {needs}")
    return height, width


def scored(cell: ScoreCell, bench: Bench, progress: Progress) -> ScoreRecord:
    """Return what a contestant says of an image."""
    began = time.perf_counter()
    contestant, image = cell.contestant, prepared(cell.image.to(bench.device), None)
    card, smoothing = contestant.scorer.card, contestant.smoothing
    assert card is not None
    bare, span = finite(score_of(bench.place(contestant.bare), image)), score_span(contestant.bare)
    facts: dict[str, Any] = {}
    if smoothing is None:
        score = bare if contestant.undefended else finite(score_of(bench.place(contestant.scorer), image))
    else:
        made = contestant.certify(
            bench, cell.image, cell.size, smoothing.seed, lambda done, total: progress(done / total)
        )
        score = finite(made.score)
        smoothing = made.smoothing
        facts = {"smoothing": smoothing, "lengthening": made.norm, "low": finite(made.low), "high": finite(made.high)}
        facts |= {"non_finite": made.non_finite}
        if not made.abstained:
            facts |= {"samples": tuple(made.scores.tolist())}
            facts |= {"lower": finite(made.lower), "upper": finite(made.upper)}
        if span:
            facts |= {name: made.largest_epsilon(share * span) or None for name, share in SHARES.items()}
    return ScoreRecord(
        **about(cell, card, cell.name, image, 0 if smoothing is None or smoothing.seed is None else smoothing.seed),
        **facts,
        defence=contestant.defence,
        score=score,
        undefended=bare,
        mos=cell.mos,
        size=cell.size,
        scorer={name: value for name, value in dataclasses.asdict(card).items() if name != "training"},
        span=span,
        epsilon=contestant.epsilon,
        seconds=round(time.perf_counter() - began, 4),
    )


def width_of(score: ScoreRecord, epsilon: float) -> float | None:
    """Return the width of the interval at a radius; None where a side is not bounded."""
    certificate = score.certificate
    if certificate is None or certificate.abstained:
        return None
    bounds = certificate.at(epsilon)
    return None if bounds.vacuous else bounds.width


def score_span(scorer: Scorer) -> float | None:
    """Return the length of the metric's range: the proven one, else the one that its authors give, else None."""
    try:
        low, high = score_range(scorer)
    except ConfigError:
        return None
    return abs(high - low)


def score_of(scorer: Scorer, image: Image) -> float:
    """Return the score of one image."""
    with torch.no_grad():
        return float(scorer(image[None]).item())


def finite(value: float) -> float | None:
    """Return a number, None where it is none or infinite."""
    return value if math.isfinite(value) else None
