"""The study of DMS-IQA: agreement with people, certified delta and attacks, for a metric behind several defences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, final

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.attacks.ascent import Arithmetic
from resolute.attacks.score import ScoreAttack
from resolute.certificates.certificate import Smoothing
from resolute.certificates.median import DenoisedScorer, prepared
from resolute.defences.purify import purifier
from resolute.errors import ConfigError, ImageError
from resolute.files import FileName
from resolute.folders import read_each
from resolute.images import from_uint8, image_sha256, read_image, to_uint8
from resolute.models.fitted import size_within
from resolute.models.scorers import load_scorer
from resolute.studies.certified_iqa_charts import charts_of
from resolute.studies.certified_iqa_summary import Summary, widest_first
from resolute.studies.certified_iqa_tables import tables_of
from resolute.studies.gains_table import gains_tables
from resolute.studies.record import Record
from resolute.studies.results import UNFINISHED, Case, Results, View
from resolute.studies.score_attacked import ScoreAttackCell, ScoreAttackRecord
from resolute.studies.score_study import ScoreStudy, behind, parted
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord
from resolute.studies.study import Cell, count
from resolute.training.rated import Rating, read_ratings

CONFIG = pydantic.ConfigDict(extra="forbid")

# So many images with the widest intervals are shown.
SHOWN = 24


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Contender:
    """A metric behind one defence.

    Attributes:
        defence: what it is called; unique in a study.
        metric: name or file; the study's where empty.
        denoiser: name or file of the denoiser in front; empty for none.
        purifier: of ``defences.purify``, in front; empty for none.
        smoothed: the score is the median under noise, and is certified.
    """

    defence: str = pydantic.Field(min_length=1)
    metric: str = ""
    denoiser: str = ""
    purifier: str = ""
    smoothed: bool = False


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Attacks:
    """What images are attacked with, found on the bare metric, and found again through each defence.

    Attributes:
        images: how many, evenly picked; 0 for no attacks.
        linf: budgets, in levels of 255; the attacked image is rounded to 8 bits.
        l2: radii over all pixels and channels; not rounded, since the smaller ones allow no change by a whole level.
        steps: of each climb.
        draws: noisy copies an adaptive step averages over.
    """

    images: int = pydantic.Field(default=4, ge=0)
    linf: tuple[pydantic.PositiveFloat, ...] = (1, 2, 4, 8)
    l2: tuple[pydantic.PositiveFloat, ...] = (0.05, 0.1, 0.25, 1, 4)
    steps: int = pydantic.Field(default=10, ge=1)
    draws: int = pydantic.Field(default=16, ge=1)

    def each(self, seed: int) -> list[ScoreAttack]:
        """Return the attacks on the bare metric one by one."""
        levels = [ScoreAttack(epsilon=level / 255, steps=self.steps, seed=seed) for level in self.linf]
        radii = [ScoreAttack(epsilon=r, norm="l2", steps=self.steps, seed=seed, grid=False) for r in self.l2]
        return [*levels, *radii]


@final
@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CertifiedIqa(ScoreStudy):
    """Contenders x images with opinion scores, and attacks on some of the images.

    Attributes:
        name: of the study, in reports.
        metric: of the contenders that name none.
        contenders: metrics behind defences.
        images: folder with ``mos.csv``.
        split: of that table.
        sigma, epsilon, samples, alpha, seed: of the certificates; see ``Certification``.
        fit: shrink larger images until their longer side has so many pixels, for all contenders; 0 for never.
        precision: of the smoothed scores; see ``certify``.
        every: take each n-th image only.
        order: defences in the order in which agreement should rise.
        attacks: what some images are attacked with.

    Example:
        >>> from resolute.studies.kinds import read_study
        >>> read_study("certified-iqa").order
        ('MS', 'DMS', 'DMS-IQA')
    """

    kind: ClassVar[str] = "certified-iqa"
    heading: ClassVar[str] = "Certified scores of {images}, by {models}"
    records: ClassVar[tuple[type[Record], ...]] = (ScoreRecord, ScoreAttackRecord)

    name: FileName
    metric: str
    contenders: tuple[Contender, ...] = pydantic.Field(min_length=1)
    images: str
    split: Literal["train", "val", "test"] = "test"
    sigma: float = pydantic.Field(default=0.12, gt=0, le=10)
    epsilon: float = pydantic.Field(default=0.05, ge=0)
    samples: int = pydantic.Field(default=100, ge=1)
    alpha: float = pydantic.Field(default=0.001, gt=0, lt=1)
    seed: int = 0
    fit: int = pydantic.Field(default=0, ge=0)
    precision: Arithmetic = "float32"
    every: int = pydantic.Field(default=1, ge=1)
    order: tuple[str, ...] = ()
    attacks: Attacks = dataclasses.field(default_factory=Attacks)

    def __post_init__(self) -> None:
        names = [contender.defence for contender in self.contenders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"contenders: two are called {twice!r}; give each defence a name of its own")
        missing = next((name for name in self.order if name not in names), None)
        if missing is not None:
            raise ConfigError(f"order: no contender is called {missing!r}")
        both = next((c.defence for c in self.contenders if c.denoiser and c.purifier), None)
        if both is not None:
            raise ConfigError(f"contenders: {both!r} has a denoiser and a purifier; choose one")

    def ratings(self) -> list[Rating]:
        """Return the images of the split with their opinion scores; lines that are no ratings are left out, and said.

        Raises:
            ConfigError: no folder with ``mos.csv``, or no image in the split.
        """
        found = read_ratings(Path(self.images), needed=(self.split,), skip_broken=True)
        return [rating for rating in found if rating.split == self.split][:: self.every]

    def cells(self) -> Sequence[Cell]:
        ratings, contestants = self.ratings(), self.contestants()

        def read(rating: Rating) -> tuple[str, Rating, Float[Tensor, "3 h w"]]:
            return self._name(rating), rating, self._fitted(read_image(rating.path))

        photos = read_each(ratings, read, skip_broken=True)
        cells: list[Cell] = []
        clean: dict[tuple[str, str], ScoreCell] = {}
        for name, rating, image in photos:
            for contestant in contestants:
                cell = ScoreCell.of(contestant, name, image, mos=rating.mos)
                clean[name, contestant.defence] = cell
                cells.append(cell)
        number = min(self.attacks.images, len(photos))
        for name, _, _ in [photos[i * len(photos) // number] for i in range(number)]:
            for attack in self.attacks.each(self.seed):
                cells += [ScoreAttackCell.of(clean[name, c.defence], attack, kept=False) for c in contestants]
                for contestant in contestants:
                    if not contestant.undefended:
                        draws = self.attacks.draws if contestant.smoothing is not None else attack.draws
                        adaptive = dataclasses.replace(attack, adaptive=True, draws=draws)
                        cells.append(ScoreAttackCell.of(clean[name, contestant.defence], adaptive, kept=False))
        return cells

    def contestants(self) -> list[Contestant]:
        """Load the metrics behind their defences.

        Raises:
            CheckpointError: one cannot be loaded.
        """
        names = [contender.metric or self.metric for contender in self.contenders]
        metrics = {name: load_scorer(name) for name in dict.fromkeys(names)}
        smoothing = Smoothing(
            sigma=self.sigma, n=self.samples, alpha=self.alpha, seed=self.seed, precision=self.precision
        )
        found: list[Contestant] = []
        for contender, name in zip(self.contenders, names, strict=True):
            bare = metrics[name]
            scorer = behind(bare, contender.denoiser)
            if contender.purifier:
                scorer = DenoisedScorer(bare, purifier(contender.purifier)).eval()
            found.append(
                Contestant(
                    defence=contender.defence, bare=bare, scorer=scorer,
                    smoothing=smoothing if contender.smoothed else None, epsilon=self.epsilon,
                )
            )  # fmt: skip
        return found

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {
            "certified": f"for l2 norms up to {self.epsilon:g}, noise of sigma {self.sigma:g}, with confidence "
            f"{100 * (1 - self.alpha):g} % an image, at the size at which the images were judged",
            "attacks": "towards better quality; undefended: found on the metric alone; adaptive: the worse of that "
            "attack and one through the defence",
        }

    def outline(self, cells: Sequence[Cell]) -> str:
        images = sum(isinstance(cell, ScoreCell) for cell in cells) // len(self.contenders)
        tried = sum(isinstance(cell, ScoreAttackCell) for cell in cells)
        return (
            f"{count(len(self.contenders), 'contender')} x {count(images, 'image')} and {count(tried, 'attack')} = "
            f"{count(len(cells), 'cell')}"
        )

    def results(self, records: Sequence[Record]) -> Results:
        scores, attacks = parted(records)
        summary = Summary.of(scores, attacks, order=self.order, epsilon=self.epsilon)
        clean = {score.key: score for score in scores}
        pairs = [(clean[attack.clean_key], attack) for attack in attacks if attack.clean_key in clean]
        tables = tables_of(summary)
        # Before the one that lists images.
        tables[-1:-1] = gains_tables(pairs)
        return Results(summary.sentences() or [UNFINISHED], tables, charts_of(summary), summary.alarm())

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        scores, _ = parted(records)
        names = list(dict.fromkeys(score.image for score, _ in widest_first(scores, self.epsilon)))[:SHOWN]
        for name in names:
            try:
                image = read_image(Path(self.images) / name)
            except ImageError:
                continue
            own = [score for score in scores if score.image == name]
            shown = self._fitted(image)
            # Records may come from anyone, and name any file of this machine.
            if image_sha256(shown) != own[0].pixels:
                continue
            facts = [f"opinion {own[0].mos:.4g}"] if own[0].mos is not None else []
            for score in own:
                low, high = score.interval(self.epsilon)
                ends = f" in [{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
                facts.append(f"{score.defence}: {'abstained' if score.score is None else f'{score.score:.4g}'}{ends}")
            yield Case(name, [View("image", shown)], facts)

    def _name(self, rating: Rating) -> str:
        return rating.path.relative_to(Path(self.images)).as_posix()

    def _fitted(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 new_h new_w"]:
        size = size_within(image, self.fit)
        return image if size is None else from_uint8(to_uint8(prepared(image, size)))
