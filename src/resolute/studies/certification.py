"""The study that certifies photographs: a score for each with a proven interval, and attacks on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.ascent import Arithmetic
from resolute.attacks.score import ScoreAttack
from resolute.certificates.certificate import Smoothing
from resolute.errors import ImageError
from resolute.files import FileName
from resolute.folders import read_each
from resolute.images import image_sha256, read_image, read_kept
from resolute.models.fitted import FittedScorer, size_within
from resolute.models.scorers import load_scorer
from resolute.studies.certification_results import results_of
from resolute.studies.datasets import Photo, find_photos
from resolute.studies.record import Record
from resolute.studies.results import Case, Results, View
from resolute.studies.score_attacked import ScoreAttackCell, ScoreAttackRecord, refutes
from resolute.studies.score_study import ScoreStudy, behind, parted
from resolute.studies.score_words import attack_words, score_words
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord, lack_of_room, width_of
from resolute.studies.study import Cell, count

# The built-in metric that is certified where none is named, and a denoiser to stand before one.
METRIC = "quality-m"
DENOISER = "denoiser-iqa-012"

# An amplification at which a change that nobody sees is seen.
AMPLIFICATION = 16


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Certification(ScoreStudy):
    """Photographs, each certified; the parameters are those of ``certify``.

    Attributes:
        images: files and folders.
        metric: name or file of the quality metric.
        denoiser: name or file of the denoiser in front of it; empty for none.
        sigma: of the noise; see ``certify``.
        epsilon: l2 radius that is asked for; another one is answered from the same samples.
        samples: noisy copies.
        alpha: chance that the guarantee fails.
        seed: of the noise, to repeat a run; None to let the operating system draw one for each image.
        noise: ``gaussian`` or ``grid``; with the latter it is added to the file's own pixels, and shrunk with them.
        deployed: samples of a deployed median that is covered too.
        precision: of the metric.
        fit: shrink larger images until their longer side has so many pixels; 0 for never.
        trusted: as for ``certify``.
        width: stop sampling once the interval is no wider than this; 0 to draw all samples.
        attacks: to make on each image as well; a certificate does not depend on them.
        skip_broken: leave images out that cannot be read, and say so.

    Example:
        >>> Certification(images=("photo.jpg",)).epsilon
        0.05
    """

    kind: ClassVar[str] = "certification"
    heading: ClassVar[str] = "Certified scores of {images}"
    records: ClassVar[tuple[type[Record], ...]] = (ScoreRecord, ScoreAttackRecord)

    name: FileName = "certify"
    images: tuple[str, ...] = pydantic.Field(min_length=1)
    metric: str = METRIC
    denoiser: str = ""
    sigma: float = pydantic.Field(default=0.12, gt=0, le=10)
    epsilon: float = pydantic.Field(default=0.05, ge=0)
    samples: int = pydantic.Field(default=1000, ge=1)
    alpha: float = pydantic.Field(default=0.001, gt=0, lt=1)
    seed: int | None = None
    noise: Literal["gaussian", "grid"] = "gaussian"
    deployed: int = pydantic.Field(default=0, ge=0)
    precision: Arithmetic = "float32"
    fit: int = pydantic.Field(default=0, ge=0)
    trusted: bool = False
    width: float = pydantic.Field(default=0.0, ge=0)
    attacks: tuple[ScoreAttack, ...] = ()
    skip_broken: bool = False

    def contestant(self) -> Contestant:
        """Load the metric, behind its denoiser where there is one.

        Raises:
            CheckpointError: either cannot be loaded.
        """
        metric = load_scorer(self.metric)
        bare, scorer = metric, behind(metric, self.denoiser)
        if self.fit:
            bare = FittedScorer(metric, self.fit)
            scorer = FittedScorer(scorer, self.fit) if self.noise == "grid" else scorer
        smoothing = Smoothing(
            sigma=self.sigma, n=self.samples, alpha=self.alpha, seed=self.seed, noise=self.noise,
            deployed=self.deployed, sequential=self.width > 0, precision=self.precision,
        )  # fmt: skip
        return Contestant(
            defence="", bare=bare, scorer=scorer, smoothing=smoothing, width=self.width, epsilon=self.epsilon,
            trusted=self.trusted,
        )  # fmt: skip

    def cells(self) -> Sequence[Cell]:
        contestant = self.contestant()
        cells: list[Cell] = []

        def read(photo: Photo) -> ScoreCell:
            image = photo.read()
            name, size = str(photo.path or photo.name), size_within(image, self.fit)
            cell = ScoreCell.of(contestant, name, image, size=None if self.noise == "grid" else size)
            problem = lack_of_room(contestant.bare, name, image.shape[-2:], size)
            return dataclasses.replace(cell, problem=problem)

        for clean in read_each(find_photos(self.images), read, self.skip_broken):
            cells += [clean, *(ScoreAttackCell.of(clean, attack, kept=True) for attack in self.attacks)]
        return cells

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        told = {
            "guarantee": "of the median score under noise, for every perturbation of the file of the l2 norm that is "
            "given, over all pixels and channels in [0, 1]"
        }
        if self.attacks:
            told["attacked images"] = "on the 8-bit grid; the defended score of each is under fresh noise"
        return told

    def outline(self, cells: Sequence[Cell]) -> str:
        images = sum(isinstance(cell, ScoreCell) for cell in cells)
        tried = len(cells) - images
        attacks = f" and {count(tried, 'attack')}" if tried else ""
        return f"{count(images, 'image')}{attacks}"

    def results(self, records: Sequence[Record]) -> Results:
        scores, attacks = parted(records)
        return results_of(scores, attacks, _short_names(scores), self.epsilon)

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        scores, attacks = parted(records)
        names = _short_names(scores)

        def worst(score: ScoreRecord) -> tuple[bool, float]:
            width = width_of(score, self.epsilon)
            refuted = any(attack.clean_key == score.key and refutes(score, attack) for attack in attacks)
            return refuted, math.inf if width is None else width

        for score in sorted(scores, key=worst, reverse=True):
            try:
                clean = read_image(Path(score.image))
            except ImageError:
                continue
            if image_sha256(clean) != score.pixels:
                continue
            views = [View("clean image", clean)]
            facts = [score_words(score, self.epsilon)]
            for attack in (attack for attack in attacks if attack.clean_key == score.key):
                facts.append(attack_words(score, attack, self.epsilon))
                try:
                    found = read_kept(folder, attack.files[0])
                except (ImageError, IndexError):
                    continue
                change = ((found - clean).abs() * AMPLIFICATION).clamp(0, 1)
                views.append(View("attacked image", found, attack.title))
                views.append(View(f"change \u00d7{AMPLIFICATION}", change, attack.title))
            yield Case(names[score.key], views, facts, pair=(0, min(1, len(views) - 1)))


def _short_names(scores: Sequence[ScoreRecord]) -> dict[str, str]:
    """Return by key what a table calls an image: the name of its file, or its path where several have that name."""
    names = [Path(score.image).name for score in scores]
    return {
        score.key: name if names.count(name) == 1 else score.image for score, name in zip(scores, names, strict=True)
    }
