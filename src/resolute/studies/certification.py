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
from resolute.errors import ImageError
from resolute.images import find_images, image_sha256, read_image
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.studies.certification_charts import curves_chart, intervals_chart
from resolute.studies.certification_tables import attacks_table, certificates_table
from resolute.studies.record import Record
from resolute.studies.results import Case, Measured, Quantity, Results, View
from resolute.studies.score_attacked import ScoreAttackCell, ScoreAttackRecord, attacked, refutes, verdict
from resolute.studies.score_words import attack_words, certified_words, refutation
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord, scored, size_within, width_of
from resolute.studies.study import Answer, Bench, Cell, Compared, Described, Pictured, Progress, Study, count

# The built-in metric that is certified where none is named, and the denoiser trained to stand before it.
METRIC = "quality-s"
DENOISER = "denoiser-iqa-012"

# An amplification at which a change that nobody sees is seen.
AMPLIFICATION = 16


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Certification(Study, Pictured, Compared, Described):
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
        charts = [*intervals_chart(scores, names, self.epsilon), *curves_chart(scores, names, self.epsilon)]
        return Results(sentences, tables, charts, " ".join(refuted))

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        scores, attacks = parted(records)
        names = short_names(scores)

        def worst(score: ScoreRecord) -> tuple[bool, float]:
            width = width_of(score, self.epsilon)
            refuted = any(attack.clean_key == score.key and refutes(score, attack) for attack in attacks)
            return refuted, math.inf if width is None else width

        for score in sorted(scores, key=worst, reverse=True):
            made = score.at(self.epsilon)
            try:
                image = read_image(Path(score.image))
                clean = prepared(image, (score.height, score.width) if score.resized else None)
            except (ImageError, ValueError):
                continue
            if image_sha256(clean) != score.pixels:
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
            yield Case(names[score.key], views, facts, pair=(0, min(1, len(views) - 1)))

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
        ends = sum(score.certificate is not None and score.certificate.saturated for score in scores)
        if ends:
            rest += (
                f" The score of {count(ends, 'image')} is an end of the range that {scores[0].model} declares: if that "
                "range is too small, scores are cut off there and the intervals say nothing."
            )
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


def measured_at(record: Record, epsilon: float) -> Measured | None:
    """Return what a record says of its image at a radius, for comparisons."""
    if not isinstance(record, ScoreRecord):
        return None
    width = width_of(record, epsilon)
    setting = {"defence": record.defence, "metric": record.metric}
    return Measured(setting, {"certified width": width, "score": record.score})
