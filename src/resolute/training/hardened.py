"""What came of a hardening: figures before and after, beside what it must beat, and the words for them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import pydantic

from resolute.errors import ConfigError, first_line
from resolute.figures import Interval, change, printed_difference, spread
from resolute.files import read_regular, write_text
from resolute.measure.intervals import bootstrap_mean
from resolute.models.base import Restorer
from resolute.table import Column, Row, Table, row
from resolute.training.judge import Judged

Role = Literal["before", "after", "bicubic", "mixture"]
ROLES: tuple[Role, ...] = ("before", "after", "mixture", "bicubic")

RESULT = "harden.json"


@final
@dataclasses.dataclass(frozen=True)
class ModelFigures:
    """How one model stands: means over images, in dB, with bootstrap intervals.

    Attributes:
        name: what it is called in tables.
        judged: image by image.
    """

    name: str
    judged: tuple[Judged, ...]

    @property
    def clean(self) -> Interval:
        """PSNR on Y without an attack."""
        return bootstrap_mean([one.clean for one in self.judged])

    @property
    def kept(self) -> Interval:
        """SR-PSNR under the attack that lowers it most on each image."""
        return bootstrap_mean([one.kept for one in self.judged])

    @property
    def truth(self) -> Interval:
        """PSNR on Y against the original, under the attack that lowers it most on each image."""
        return bootstrap_mean([one.truth for one in self.judged])

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks that judged it."""
        return tuple(dict.fromkeys(name for one in self.judged for name in one.damage))

    def under(self, attack: str) -> tuple[Interval, Interval]:
        """Return SR-PSNR and PSNR against the original under one attack, over the images that saw it."""
        found = [one.damage[attack] for one in self.judged if attack in one.damage]
        return bootstrap_mean([one.kept for one in found]), bootstrap_mean([one.truth for one in found])


@final
@dataclasses.dataclass(frozen=True)
class Hardening:
    """The result of ``harden``.

    Attributes:
        name: of the model.
        weights: the file with the hardened weights.
        note: what its user must know, or empty.
        level: budget in levels of 255.
        theta: share of the undefended model in the mixture with bicubic interpolation whose clean PSNR is that of the
            hardened model.
        before, after, mixture, bicubic: how they stand.
        pictures: by image and role, the files of what a person looks at, as ``attacked`` and ``output``.
        facts: recipe, provenance and arithmetic, for the page.
        model: the hardened model; None where it was read from a folder.
    """

    name: str
    weights: Path
    note: str
    level: float
    theta: float
    before: ModelFigures
    after: ModelFigures
    mixture: ModelFigures
    bicubic: ModelFigures
    pictures: dict[str, dict[str, dict[str, str]]]
    facts: dict[str, Any]
    model: Restorer | None = dataclasses.field(default=None, repr=False, compare=False)

    __pydantic_config__: ClassVar = pydantic.ConfigDict(arbitrary_types_allowed=True)

    @property
    def standings(self) -> tuple[ModelFigures, ...]:
        """All of them, in the order of tables."""
        return tuple(getattr(self, role) for role in ROLES)

    @property
    def improved(self) -> bool:
        """Whether the worst that attacks leave is better than before, by both measures."""
        return self.after.truth.mean > self.before.truth.mean and self.after.kept.mean > self.before.kept.mean

    def gain(self, quantity: Literal["clean", "kept", "truth"]) -> Interval:
        """Return the mean difference of after and before, paired image by image."""
        pairs = zip(self.before.judged, self.after.judged, strict=True)
        return bootstrap_mean([getattr(after, quantity) - getattr(before, quantity) for before, after in pairs])

    def _gained(self, quantity: Literal["clean", "kept", "truth"], digits: int = 1) -> str:
        """Return what was gained, with its interval where there are several images."""
        before, after = (getattr(one, quantity).mean for one in (self.before, self.after))
        told = f"{change(before, after, digits).difference} dB"
        return f"{told} {spread(self.gain(quantity), digits, signed=True)}".rstrip()

    def sentences(self) -> list[str]:
        """Say what came out; a result that is no better than the start is said first.

        Example:
            >>> from resolute.training.judge import Damage
            >>> one = Judged("a.png", 28.0, {"APGD": Damage(10.0, 11.0)})
            >>> two = Judged("a.png", 27.9, {"APGD": Damage(29.0, 26.0)})
            >>> line = Judged("a.png", 26.5, {"APGD": Damage(37.0, 26.2)})
            >>> before, after, bicubic = (ModelFigures("x", (judged,)) for judged in (one, two, line))
            >>> made = Hardening("net", Path("net.pth"), "", 4, 0.9, before, after, before, bicubic, {}, {})
            >>> made.sentences()[0]
            'Attacked at 4/255, net keeps 29.0 dB of SR-PSNR instead of 10.0 dB (+19.0 dB).'
        """
        before, after = self.before, self.after
        told: list[str] = []
        if not self.improved:
            worse = [
                words
                for words, lost in (
                    ("against the original", after.truth.mean <= before.truth.mean),
                    ("by SR-PSNR", after.kept.mean <= before.kept.mean),
                )
                if lost
            ]
            told.append(
                f"Hardening did not help: {' and '.join(worse)}, attacks leave {self.name} no better than before. "
                "Give more minutes or more photographs, or keep what you have."
            )
        told.append(
            f"Attacked at {self.level:g}/255, {self.name} keeps {_db(after.kept)} of SR-PSNR instead of "
            f"{_db(before.kept)} ({self._gained('kept')})."
        )
        if before.clean.mean < self.bicubic.clean.mean:
            told.append(
                f"Before hardening and without an attack, {self.name} is worse than bicubic interpolation "
                f"({_db(before.clean)} against {_db(self.bicubic.clean)}): check its range, scale and weights, for the "
                "figures of a network that does not upscale mean little."
            )
        same = "the same" if abs(after.clean.mean - self.mixture.clean.mean) < 0.02 else "the nearest"
        told.append(
            f"Against the original that is {_db(after.truth)} instead of {_db(before.truth)} "
            f"({self._gained('truth')}), {_beside(after.truth, self.bicubic.truth)} bicubic interpolation "
            f"under the same attacks ({_db(self.bicubic.truth)}) and {_beside(after.truth, self.mixture.truth)} the "
            f"mixture of bicubic and {self.name} with {same} clean PSNR ({_db(self.mixture.truth)})."
        )
        count = "1 image" if len(after.judged) == 1 else f"{len(after.judged)} images"
        brackets = "; in brackets 95 % bootstrap intervals" if len(after.judged) > 1 else ""
        told.append(
            f"Without an attack it has {_db(after.clean, 2)} instead of {_db(before.clean, 2)} "
            f"({self._gained('clean', 2)}), over {count} that it was not trained on{brackets}."
        )
        kept = self.facts.get("kept", 1.0)
        if kept < 1:
            limit = self.facts["recipe"]["clean_loss"]
            told.append(
                f"So that no more than {limit:g} dB of clean PSNR is lost on photographs held out, {1 - kept:.0%} of "
                "the way between the weights before and after was taken back."
                + (" Almost nothing of the hardening is left: allow more." if kept < 0.1 else "")
            )
        return told

    def save(self, folder: Path) -> None:
        """Write ``harden.json``.

        Raises:
            OutputError: it cannot be written.
        """
        kept = dataclasses.replace(self, model=None, weights=Path(self.weights.name))
        content = {name: value for name, value in dataclasses.asdict(kept).items() if name != "model"}
        content["weights"] = self.weights.name.encode(errors="replace").decode()
        write_text(folder / RESULT, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @staticmethod
    def read(folder: Path) -> Hardening:
        """Read the ``harden.json`` of a folder.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        path = folder / RESULT
        try:
            made = pydantic.TypeAdapter(Hardening).validate_json(read_regular(path))
        except FileNotFoundError:
            raise ConfigError(f"no hardening in {folder}: run `resolute harden MODEL --data PHOTOS` first") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is damaged ({first_line(error)}); delete it and run the command again") from None
        if not {"recipe", "provenance", "precision of the search"} <= made.facts.keys():
            raise ConfigError(f"{path} is damaged (facts are missing); delete it and run the command again")
        return dataclasses.replace(made, weights=folder / made.weights.name)


def tables(made: Hardening) -> tuple[Table, Table]:
    """Return the figures of a hardening, the worst attack on each image counting, and those of each attack alone."""
    truth, kept = "attacked output against the original", "attacked output against the model's own clean output"
    measured = [
        Column("PSNR", "against the original, Y, dB", truth, better="higher"),
        Column("SR-PSNR", "dB", kept, better="higher"),
    ]
    columns = [
        Column("model", meaning="the mixture is with bicubic interpolation, of the hardened model's clean PSNR"),
        Column("clean PSNR", "Y, dB", "output without an attack, against the original", better="higher"),
        dataclasses.replace(measured[0], name="attacked PSNR", key=True),
        measured[1],
    ]
    rows = [row(one.name, one.clean.mean, one.truth.mean, one.kept.mean) for one in made.standings]
    count = len(made.after.judged)
    caption = f"Means over {count} image{'s' if count != 1 else ''}; on each image the attack counts that leaves least"
    each: list[Row] = []
    for one in made.standings:
        for number, attack in enumerate(one.attacks):
            kept, truth = one.under(attack)
            each.append(row(one.name, attack, truth.mean, kept.mean, kept.n, section=number == 0))
    by_attack = [Column("model"), Column("attack"), *measured, Column("images")]
    alone = Table("By attack", by_attack, each, caption="Each attack alone, means over the images that saw it")
    return Table("Figures", columns, rows, caption=caption), alone


def _db(value: Interval, digits: int = 1) -> str:
    return f"{value.mean:.{digits}f} dB"


def _beside(value: Interval, other: Interval) -> str:
    difference = printed_difference(other.mean, value.mean, 1)
    if not difference:
        return "level with"
    return f"{abs(difference):.1f} dB {'above' if difference > 0 else 'below'}"
