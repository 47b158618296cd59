"""One super-resolution model smoothed by noise of one size on one image: cells, records, answers."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor

from resolute.certificates.certificate import Smoothing
from resolute.certificates.restoration import LARGEST_SIGMA, certify_restoration
from resolute.certificates.restored import PIXELS, RestorationCertificate
from resolute.certificates.statistic import Statistic
from resolute.measure.fidelity import psnr_rgb
from resolute.models.base import Restorer
from resolute.models.tiling import Tiled
from resolute.studies.attacked import Subject
from resolute.studies.record import Count, Radius, Record, record_key
from resolute.studies.scored import finite
from resolute.studies.study import Answer, Bench, Progress, RestorerCell, about

Image = Float[Tensor, "3 h w"]

# At which a change that nobody sees is seen.
AMPLIFICATION = 8

# SR-PSNR in dB of outputs that provably do not move at all.
EQUAL = 200.0

Decibels = Annotated[float, pydantic.Field(le=EQUAL)]
Move = Annotated[float, pydantic.Field(ge=0, le=1)]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticBounds:
    """What is certified of one statistic: of one value its interval, of many the widest interval.

    Attributes:
        name: of the statistic.
        count: values that it has, whose intervals hold together.
        value: sampled median, where it is one value.
        lower, upper: its interval; None for an end that is infinite, and where there are many values.
        widest: width of the widest interval; None where it is infinite.
    """

    name: str
    count: int
    value: float | None
    lower: float | None
    upper: float | None
    widest: float | None


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RestorationRecord(Record):
    """What is proven of a smoothed super-resolution model on one image at one radius.

    PSNR is in dB, over RGB, unrounded and uncropped; None stands for minus infinity where nothing is proven, and where
    there is no ground truth; 200 for outputs that provably do not move. Everything certified holds with confidence
    1 - alpha by itself.

    Attributes:
        sigma: standard deviation of the noise, on the scale of [0, 1].
        epsilon: l2 radius of the perturbations of the input, over all pixels and channels.
        copies: noisy copies.
        alpha: chance that a certified figure is wrong.
        noise: ``gaussian`` in float32, or ``grid``, exact on the 8-bit grid.
        drawn: the seed was drawn by the operating system once the image was fixed.
        exact_ranks: order statistics are exact, not bracketed by histograms.
        plain_psnr: the model without noise, against the ground truth.
        median_psnr: the sampled per-pixel median of the clean image, against the ground truth.
        mean_psnr: the sampled mean of the clean image, against the ground truth.
        certified_median: SR-PSNR that the median output keeps at least, by its pixels' bounds.
        certified_mean: SR-PSNR that the mean output keeps at least, by the covariance under noise.
        certified_centre: SR-PSNR that the centre keeps at least, by centre smoothing.
        certified_truth_median: PSNR against the ground truth that the median output keeps at least.
        certified_truth_mean: PSNR against the ground truth that the mean output keeps at least.
        largest_move: how far any value of the median output can move at most, in [0, 1].
        mean_move: the mean over all values of how far each can move at most.
        statistics: what is certified of regions, the output shrunk and a score.
        words: the guarantee in words.
    """

    view: ClassVar[str] = "certified_outputs"

    sigma: Annotated[float, pydantic.Field(gt=0, le=LARGEST_SIGMA)]
    epsilon: Radius
    copies: Count
    alpha: Annotated[float, pydantic.Field(gt=0, lt=1)]
    noise: str
    drawn: bool
    exact_ranks: bool
    plain_psnr: Decibels | None
    median_psnr: Decibels | None
    mean_psnr: Decibels | None
    certified_median: Decibels | None
    certified_mean: Decibels | None
    certified_centre: Decibels | None
    certified_truth_median: Decibels | None
    certified_truth_mean: Decibels | None
    largest_move: Move
    mean_move: Move
    statistics: tuple[StatisticBounds, ...] = ()
    words: str = ""

    @property
    def certified(self) -> tuple[str, float] | None:
        """Which output is the best bounded, and its SR-PSNR in dB; None where nothing is proven."""
        found = {"median": self.certified_median, "mean": self.certified_mean, "centre": self.certified_centre}
        known = {name: value for name, value in found.items() if value is not None}
        best = max(known, key=lambda name: known[name], default=None)
        return None if best is None else (best, known[best])

    @property
    def kept_psnr(self) -> float | None:
        """The clean PSNR, against the ground truth, of the output that ``certified`` is about; None without one."""
        certified = self.certified
        return self.mean_psnr if certified is not None and certified[0] != "median" else self.median_psnr


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RestorationCell(RestorerCell):
    """One model under one noise, one image, one radius; the radii share their samples."""

    subject: Subject
    made: Smoothing
    epsilon: float
    statistics: tuple[Statistic, ...]
    memory: int

    @staticmethod
    def of(
        model: Restorer,
        subject: Subject,
        made: Smoothing,
        epsilon: float,
        statistics: tuple[Statistic, ...],
        memory: int,
        radii: int,
        problem: str = "",
    ) -> RestorationCell:
        """Return the cell that asks what is proven at a radius, one of several."""
        assert model.card is not None
        name, weights = model.card.name, model.card.sha256
        names = [statistic.name for statistic in statistics]
        like = ("restoration", name, weights, repr(made), *subject.identity, memory, *names)
        return RestorationCell(
            key=record_key(*like, epsilon),
            title=f"{subject.name}, {name}, sigma {made.sigma:g}, radius {epsilon:g}",
            like=like,
            shape=tuple(subject.low.shape),
            cost=float(subject.low[0, 0].numel()) * made.n / radii,
            joint=True,
            model=model,
            subject=subject,
            made=made,
            epsilon=epsilon,
            statistics=statistics,
            memory=memory,
            problem=problem,
        )


def restored(cells: Sequence[RestorationCell], bench: Bench, progress: Progress) -> list[Answer]:
    """Return what is proven of one model and image at several radii, from one set of samples."""
    began = time.perf_counter()
    first = cells[0]
    model, made, subject = bench.place(first.model), first.made, first.subject
    certificate = certify_restoration(
        Tiled(model, bench.tile) if bench.tile else model, subject.low[0].to(bench.device), made.sigma,
        max(cell.epsilon for cell in cells), made.n, made.alpha, seed=made.seed, noise=made.noise,
        statistics=first.statistics, memory=first.memory, progress=lambda done, total: progress(done / total),
    )  # fmt: skip
    seconds = (time.perf_counter() - began) / len(cells)
    return [_answer(cell, certificate.at(cell.epsilon), seconds) for cell in cells]


def _answer(cell: RestorationCell, found: RestorationCertificate, seconds: float) -> Answer:
    truth = None if cell.subject.truth is None else cell.subject.truth[0]
    assert cell.model.card is not None
    assert found.smoothing.seed is not None
    bounds, moves = found.bounds(), found.moves()
    record = RestorationRecord(
        **about(cell, cell.model.card, cell.subject.name, cell.subject.low[0], found.smoothing.seed),
        dataset=cell.subject.dataset,
        seconds=round(seconds, 3),
        sigma=found.smoothing.sigma,
        epsilon=found.epsilon,
        copies=found.smoothing.n,
        alpha=found.smoothing.alpha,
        noise=found.smoothing.noise,
        drawn=found.smoothing.drawn,
        exact_ranks=found.samples.exact,
        plain_psnr=_psnr(found.plain, truth),
        median_psnr=_psnr(found.output, truth),
        mean_psnr=_psnr(found.mean, truth),
        certified_median=_decibels(found.sr_psnr()),
        certified_mean=_decibels(found.sr_psnr_mean()),
        certified_centre=_decibels(found.sr_psnr_centre()),
        certified_truth_median=None if truth is None else _decibels(found.psnr_to(truth)[0]),
        certified_truth_mean=None if truth is None else _decibels(found.psnr_to_by_mean(truth)),
        largest_move=found.largest_change(),
        mean_move=float(moves.double().mean()),
        statistics=tuple(_bounds(found, group.name) for group in found.groups if group.name != PIXELS),
        words=found.words(),
    )
    # Rounded outwards, so that the files hold too.
    pictures = {
        "lower": torch.floor(bounds.lower * 255) / 255,
        "upper": torch.ceil(bounds.upper * 255).clamp_max(255) / 255,
        "defended": found.output,
        "moves": (moves.amax(dim=0, keepdim=True) * AMPLIFICATION).clamp(0, 1).expand(3, -1, -1),
    }
    return Answer(record, pictures)


def _bounds(found: RestorationCertificate, name: str) -> StatisticBounds:
    bounds, value = found.bounds(name), found.value(name)
    one = value.numel() == 1
    return StatisticBounds(
        name=name,
        count=value.numel(),
        value=finite(float(value)) if one else None,
        lower=finite(float(bounds.lower)) if one else None,
        upper=finite(float(bounds.upper)) if one else None,
        widest=finite(bounds.widest),
    )


def _psnr(output: Image, truth: Image | None) -> float | None:
    return None if truth is None else _decibels(float(psnr_rgb(output[None], truth[None])))


def _decibels(value: float) -> float | None:
    return None if value == -math.inf else min(value, EQUAL)
