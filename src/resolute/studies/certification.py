"""The study that certifies photographs: a score for each with a proven interval, and attacks on it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.ascent import Precision
from resolute.attacks.score import ScoreAttack
from resolute.certificates.certificate import Smoothing
from resolute.certificates.median import DenoisedScorer, prepared
from resolute.chart import Chart, Figure
from resolute.errors import ImageError
from resolute.figures import Interval
from resolute.images import find_images, read_image
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.studies.record import Record
from resolute.studies.results import Case, Measured, Quantity, Results, View
from resolute.studies.score_attacked import ScoreAttackCell, ScoreAttackRecord, attacked, verdict
from resolute.studies.score_words import attack_words, certified_words, refutation
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord, scored, size_within
from resolute.studies.study import Answer, Bench, Cell, Progress, Study, count
from resolute.table import Cell as Entry
from resolute.table import Column, Table, row

# The built-in metric that is certified where none is named, and the denoiser trained to stand before it.
METRIC = "quality-s"
DENOISER = "denoiser-iqa-012"

# An amplification at which a change that nobody sees is seen.
AMPLIFICATION = 16


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Certification(Study):
    """Photographs, each certified; the parameters are those of ``certify``.

    Attributes:
        images: files and folders.
        metric: name or file of the quality metric.
        denoiser: name or file of the denoiser in front of it; empty for none.
        sigma: of the noise; see ``certify``.
        epsilon: l2 radius that is asked for; another one is answered from the same samples.
        samples: noisy copies.
        alpha: chance that the guarantee fails.
        seed: of the noise.
        noise: ``gaussian`` or ``grid``.
        deployed: samples of a deployed median that is covered too.
        precision: of the metric.
        fit: shrink larger images until their longer side has so many pixels, and measure the ball there; 0 for never.
        width: stop sampling once the interval is no wider than this; 0 to draw all samples.
        attacks: to make on each image as well; a certificate does not depend on them.

    Example:
        >>> Certification(images=("photo.jpg",)).epsilon
        0.05
    """

    kind: ClassVar[str] = "certification"
    records: ClassVar[tuple[type[Record], ...]] = (ScoreRecord, ScoreAttackRecord)

    name: str = "certify"
    images: tuple[str, ...] = pydantic.Field(min_length=1)
    metric: str = METRIC
    denoiser: str = ""
    sigma: float = pydantic.Field(default=0.12, gt=0, le=10)
    epsilon: float = pydantic.Field(default=0.05, ge=0)
    samples: int = pydantic.Field(default=1000, ge=1)
    alpha: float = pydantic.Field(default=0.001, gt=0, lt=1)
    seed: int = 0
    noise: Literal["gaussian", "grid"] = "gaussian"
    deployed: int = pydantic.Field(default=0, ge=0)
    precision: Precision = "float32"
    fit: int = pydantic.Field(default=0, ge=0)
    width: float = pydantic.Field(default=0.0, ge=0)
    attacks: tuple[ScoreAttack, ...] = ()

    def contestant(self) -> Contestant:
        """Load the metric, behind its denoiser where there is one.

        Raises:
            CheckpointError: either cannot be loaded.
        """
        bare = load_scorer(self.metric)
        scorer = behind(bare, self.denoiser)
        smoothing = Smoothing(
            sigma=self.sigma, n=self.samples, alpha=self.alpha, seed=self.seed, noise=self.noise,
            deployed=self.deployed, sequential=self.width > 0, precision=self.precision,
        )  # fmt: skip
        return Contestant(
            defence="", bare=bare, scorer=scorer, smoothing=smoothing, width=self.width, epsilon=self.epsilon
        )

    def cells(self) -> Sequence[Cell]:
        contestant = self.contestant()
        cells: list[Cell] = []
        for file in find_images([Path(image) for image in self.images]):
            image = read_image(file)
            clean = ScoreCell.of(contestant, str(file), image, size=size_within(image, self.fit))
            cells += [clean, *(ScoreAttackCell.of(clean, attack, kept=True) for attack in self.attacks)]
        return cells

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        return answers(cells, bench, progress)

    def without_tiles(self, cell: Cell) -> str:
        return "metrics score whole images; use --fit or another --device"

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {
            "guarantee": "of the median score under noise, for every perturbation of the l2 norm that is given, over "
            "all pixels and channels in [0, 1], at the size at which the image was judged",
            "attacked images": "on the 8-bit grid; the defended score of each is under fresh noise",
        }

    def outline(self, cells: Sequence[Cell]) -> str:
        images = sum(isinstance(cell, ScoreCell) for cell in cells)
        tried = len(cells) - images
        attacks = f" and {count(tried, 'attack')}" if tried else ""
        return f"{count(images, 'image')}{attacks}"

    def results(self, records: Sequence[Record]) -> Results:
        scores, attacks = parted(records)
        names = short_names(scores)
        if not scores:
            return Results(["Nothing was certified."], [])
        sentences: list[str] = []
        if len(scores) == 1:
            made = scores[0].at(self.epsilon)
            sentences.append(made.words() if made is not None else certified_words(scores[0], self.epsilon))
        else:
            sentences.append(self._summary(scores))
        pairs = [(score, attack) for score in scores for attack in attacks if attack.clean_key == score.key]
        if len(scores) == 1:
            sentences += [attack_words(score, attack, self.epsilon) for score, attack in pairs]
        elif pairs:
            # Of several images that is told whose undefended score moved most.
            worst, _ = max(pairs, key=lambda pair: abs((pair[1].attacked or 0) - (pair[1].clean or 0)))
            sentences += [
                f"{names[score.key]}: {attack_words(score, attack, self.epsilon)}"
                for score, attack in pairs
                if score is worst
            ]
        refuted = [
            f"{names[score.key]}: {refutation(score, attack)}"
            for score, attack in pairs
            if verdict(score, attack, self.epsilon) == "refuted"
        ]
        tables = [certificates_table(scores, names, self.epsilon)]
        if pairs:
            tables.append(attacks_table(pairs, names, self.epsilon))
        charts = [intervals_chart(scores, names, self.epsilon), curves_chart(scores, names, self.epsilon)]
        return Results(sentences, tables, charts, " ".join(refuted))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        scores, attacks = parted(records)
        names = short_names(scores)

        def worst(score: ScoreRecord) -> float:
            low, high = score.interval(self.epsilon) or (None, None)
            return math.inf if low is None or high is None else high - low

        for score in sorted(scores, key=worst, reverse=True):
            made = score.at(self.epsilon)
            try:
                image = read_image(Path(score.image))
                clean = prepared(image, (score.height, score.width) if score.resized else None)
            except (ImageError, ValueError):
                continue
            views = [View("clean image", clean)]
            facts = [made.words() if made is not None else certified_words(score, self.epsilon)]
            for attack in attacks:
                if attack.clean_key != score.key:
                    continue
                facts.append(attack_words(score, attack, self.epsilon))
                try:
                    found = read_image(folder / attack.files[0])
                except (ImageError, IndexError):
                    continue
                change = ((found - clean).abs() * AMPLIFICATION).clamp(0, 1)
                views += [
                    View("attacked image", found, attack.title),
                    View(f"change \u00d7{AMPLIFICATION}", change, attack.title),
                ]
            yield Case(names[score.key], views, facts, {"image": names[score.key]}, (0, min(1, len(views) - 1)))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        return [Quantity("certified width", lower_better=True), Quantity("score", digits=3)]

    def measured(self, record: Record) -> Measured | None:
        return measured_at(record, self.epsilon)

    def _summary(self, scores: Sequence[ScoreRecord]) -> str:
        widths = [width for score in scores if (width := width_of(score, self.epsilon)) is not None]
        abstained = sum(score.non_finite > 0 for score in scores)
        lead = f"{count(len(scores), 'image')} judged by {scores[0].model}."
        told = (
            f" The true median of half of the {len(widths)} with an interval on both sides provably stays within a "
            f"width of {statistics.median(widths):.3g} for every perturbation of l2 norm up to {self.epsilon:g}."
            if widths
            else f" The samples do not suffice to bound any score at an l2 norm of {self.epsilon:g}."
        )
        rest = f" {count(abstained, 'score')} abstained: not finite on noisy copies." if abstained else ""
        return lead + told + rest


def behind(bare: Scorer, denoiser: str) -> Scorer:
    """Return the metric behind a denoiser of this name or file, or the metric itself for an empty one.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    return DenoisedScorer(bare, load(denoiser, scale=1)).eval() if denoiser else bare


def answers(cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
    """Answer cells about scores and attacks on them, one after the other."""
    found: list[Answer] = []
    for number, cell in enumerate(cells):

        def step(share: float, number: int = number) -> None:
            progress((number + share) / len(cells))

        if isinstance(cell, ScoreAttackCell):
            found.append(attacked(cell, bench, step))
        else:
            assert isinstance(cell, ScoreCell)
            found.append(Answer(scored(cell, bench, step)))
    return found


def parted(records: Sequence[Record]) -> tuple[list[ScoreRecord], list[ScoreAttackRecord]]:
    """Return the records of clean images and those of attacks."""
    scores = [record for record in records if isinstance(record, ScoreRecord)]
    return scores, [record for record in records if isinstance(record, ScoreAttackRecord)]


def short_names(scores: Sequence[ScoreRecord]) -> dict[str, str]:
    """Return by key what a table calls an image: the name of its file, or its path where several have that name."""
    names = [Path(score.image).name for score in scores]
    return {
        score.key: name if names.count(name) == 1 else score.image for score, name in zip(scores, names, strict=True)
    }


def width_of(score: ScoreRecord, epsilon: float) -> float | None:
    """Return the width of the interval at a radius; None where a side is not bounded."""
    certificate = score.certificate
    if certificate is None or certificate.abstained:
        return None
    bounds = certificate.at(epsilon)
    return None if bounds.vacuous else bounds.width


def measured_at(record: Record, epsilon: float) -> Measured | None:
    """Return what a record says of its image at a radius, for comparisons."""
    if not isinstance(record, ScoreRecord):
        return None
    width = width_of(record, epsilon)
    setting = {"defence": record.defence, "metric": record.metric}
    return Measured(setting, {"certified width": width, "score": record.score})


def certificates_table(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> Table:
    """Return certificates, one image a row; what is the same for all is in the caption."""
    first = scores[0]
    better: Literal["higher", "lower"] = "lower" if first.lower_better else "higher"
    columns = [
        Column("image"),
        Column("without noise", better=better),
        Column("score", better=better, key=True),
        Column("from"),
        Column("to"),
        Column("safe 1 %", "l2", "radius up to which the true median moves by at most 1 % of the range", 4),
        Column("safe 5 %", "l2", "radius up to which the true median moves by at most 5 % of the range", 4),
        Column("samples"),
    ]
    rows = []
    for score in scores:
        low, high = score.interval(epsilon) or (None, None)
        bounded = score.non_finite == 0
        rows.append(
            row(
                names[score.key],
                score.undefended,
                score.score,
                (-math.inf if low is None else low) if bounded else None,
                (math.inf if high is None else high) if bounded else None,
                score.safe_1,
                score.safe_5,
                len(score.samples) if bounded else Entry("abstained", tone="bad"),
            )
        )
    sigma = first.smoothing.sigma if first.smoothing else 0.0
    words = (
        f"{first.model}, {better} is better. Score: sampled median under noise of sigma {sigma:g}. "
        f"{certified_words(first, epsilon)}"
    )
    return Table("Certificates", columns, rows, caption=words)


def attacks_table(
    pairs: Sequence[tuple[ScoreRecord, ScoreAttackRecord]], names: dict[str, str], epsilon: float
) -> Table:
    """Return attacks on certified images, one a row: what the metric alone says, and what the smoothed one says."""
    columns = [
        Column("image"),
        Column("attack"),
        Column("without noise, clean"),
        Column("attacked"),
        Column("defended, clean"),
        Column("attacked, defended"),
        Column("l2 norm", digits=3),
        Column("defended score is"),
    ]
    rows = []
    for score, attack in pairs:
        found = verdict(score, attack, epsilon)
        tone = "bad" if found == "refuted" else "unsure" if found == "outside" else ""
        rows.append(
            row(
                names[score.key], attack.title, attack.clean, attack.attacked, score.score, attack.defended, attack.l2,
                Entry(found, tone=tone),
            )
        )  # fmt: skip
    words = (
        "Attacked images, as saved in 8 bits; the defended score is a median under fresh noise. Adaptive: the worse of "
        "the attack on the metric alone and one through the noise, and the denoiser if there is one. The interval is "
        f"proven for the true median and changes of l2 norm up to {epsilon:g}; beyond, staying inside is an "
        "observation and no guarantee."
    )
    return Table("Attacks", columns, rows, caption=words)


def intervals_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> Chart:
    """Draw every certified interval with its score, the widest at the top."""
    shown = [
        (Interval(score.score, low, high, 1), names[score.key])
        for score in scores
        if score.score is not None
        for low, high in [score.interval(epsilon) or (None, None)]
        if low is not None and high is not None
    ]
    shown.sort(key=lambda one: one[0].high - one[0].low)
    figure: Figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(value.mean, 4) for value, _ in shown],
                "y": [name for _, name in shown],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(value.high - value.mean, 4) for value, _ in shown],
                    "arrayminus": [round(value.mean - value.low, 4) for value, _ in shown],
                },
                "marker": {"size": 8, "color": "#2f86d0"},
                "hovertemplate": "%{y}: %{x:.2f}",
                "showlegend": False,
            }
        ],
        "layout": {
            "height": 120 + 26 * len(shown),
            "margin": {"l": 10, "r": 10, "t": 10, "b": 50},
            "xaxis": {"title": {"text": "score"}},
            "yaxis": {"automargin": True, "type": "category"},
        },
    }
    title = f"Certified intervals, l2 radius {epsilon:g}"
    return Chart("intervals", title, "The interval of every image with its sampled median, the widest on top.", figure)


def curves_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> Chart:
    """Draw the width of the interval over the radius, one curve an image, as far as it is bounded."""
    data: list[Figure] = []
    for score in scores:
        certificate = score.certificate
        if certificate is None or certificate.abstained:
            continue
        bounds = [bounds for bounds in certificate.curve(score.radii()) if not bounds.vacuous]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": names[score.key],
                "x": [round(one.epsilon, 5) for one in bounds],
                "y": [round(one.width, 5) for one in bounds],
                "hovertemplate": "%{x}: %{y:.3f}",
            }
        )
    line = {"type": "line", "x0": epsilon, "x1": epsilon, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
    layout: Figure = {
        "margin": {"l": 60, "r": 10, "t": 10, "b": 50},
        "xaxis": {"title": {"text": "l2 radius"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "width of the interval"}, "rangemode": "tozero"},
        "shapes": [line],
        "showlegend": len(data) <= 12,
    }
    words = "Width of the certified interval over the radius; each radius holds with the same confidence by itself."
    return Chart("curves", "Width over the radius", words, {"data": data, "layout": layout})
