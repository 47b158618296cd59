"""What a paper published, and whether a study's own figures say the same: computed image by image, never typed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Literal

import numpy as np
import pydantic
from pydantic.dataclasses import dataclass

from resolute.measure.intervals import bootstrap_mean
from resolute.studies.attacked import AttackRecord
from resolute.studies.steepness import CleverRecord
from resolute.studies.study import count as amount
from resolute.studies.summary import WORST, level_of, worst_case

Quantity = Literal[
    "sr_psnr", "sr_ssim", "lr_psnr", "clean_psnr_y", "attacked_psnr_y", "clever", "phi_std", "phi_range", "phi_spread",
    "phi_moved",
]  # fmt: skip
Verdict = Literal["agrees", "disagrees", "undecided"]

# Name, unit and digits of each quantity, and those that do not depend on an attack.
QUANTITIES: dict[str, tuple[str, str, int]] = {
    "sr_psnr": ("SR-PSNR", "dB", 2),
    "sr_ssim": ("SR-SSIM", "", 3),
    "lr_psnr": ("LR-PSNR", "dB", 2),
    "clean_psnr_y": ("clean PSNR", "dB", 2),
    "attacked_psnr_y": ("attacked PSNR against the truth", "dB", 2),
    "clever": ("CLEVER index", "", 0),
    "phi_std": ("spread of the features", "", 2),
    "phi_range": ("range of the features", "", 1),
    "phi_spread": ("growth of the features' spread under attack", "%", 1),
    "phi_moved": ("change of the features over their spread", "%", 0),
}
_UNATTACKED = ("clean_psnr_y", "clever", "phi_std", "phi_range")


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Claim:
    """A published number or statement, as written in TOML.

    Attributes:
        says: the statement, in a sentence.
        where: paper, section or figure.
        quantity: what it is about.
        order: names in tiers, the largest value first: each of a tier above each of the next.
        values: published numbers by name; their order is what is compared where ``order`` is empty.
        over: whether the names are models or attacks.
        relation: ``above``; ``not above`` and ``not below``, where the second is not lower, or not higher; ``similar``,
            within ``tolerance``.
        tolerance: see ``relation``, in the quantity's unit.
        attacks, levels: where it is said to hold; empty for everywhere. ``worst case`` is the worst attack on each
            image.

    Example:
        >>> Claim(says="ER gains", where="table 1", quantity="sr_psnr", values={"a": 31.6, "a-er": 41.0}).tiers
        (('a-er',), ('a',))
    """

    says: str
    where: str
    quantity: Quantity
    order: tuple[tuple[str, ...], ...] = ()
    values: dict[str, float] = pydantic.Field(default_factory=dict)
    over: Literal["model", "attack"] = "model"
    relation: Literal["above", "not above", "not below", "similar"] = "above"
    tolerance: float = pydantic.Field(default=0.5, gt=0)
    attacks: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()

    @property
    def tiers(self) -> tuple[tuple[str, ...], ...]:
        """The order to be compared."""
        return self.order or tuple((name,) for name in sorted(self.values, key=lambda name: -self.values[name]))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(dict.fromkeys([*(name for tier in self.tiers for name in tier), *self.values]))


@dataclasses.dataclass(frozen=True)
class Setting:
    """One place where a claim can be checked.

    Attributes:
        other, level: attack, or model where attacks are compared, and budget; empty and None where neither matters.
        here: our mean for each name that was measured.
        verdict: over all pairs of names: undecided where a 95 % interval of the paired differences contains zero.
    """

    other: str
    level: float | None
    here: dict[str, float]
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim beside our own figures: none where the study has nothing to check it with."""

    claim: Claim
    settings: list[Setting]

    @property
    def kind(self) -> str:
        """The verdict where all settings have the same, ``mixed`` where not, and ``none`` where there is no setting."""
        kinds = {setting.verdict for setting in self.settings}
        return "mixed" if len(kinds) > 1 else next(iter(kinds), "none")

    @property
    def verdict(self) -> str:
        """In words: in how many settings our figures agree, and how much of a published change there is."""
        count = Counter(setting.verdict for setting in self.settings)
        if not count:
            return "not measured"
        if len(count) == 1:
            share = self._share() if count["agrees"] else None
            if share is not None:
                return f"agrees in sign; {share * 100:.0f} % of the published change"
            return next(iter(count))
        parts = [f"{verdict} in {count[verdict]}" for verdict in ("agrees", "disagrees", "undecided") if count[verdict]]
        return f"{', '.join(parts)} of {len(self.settings)} settings"

    def _share(self) -> float | None:
        """Return the change here over the published one; None unless two numbers were published of one setting."""
        if len(self.claim.values) != 2 or len(self.settings) > 1 or self.claim.order or self.claim.relation != "above":
            return None
        (upper,), (lower,) = self.claim.tiers
        here = self.settings[0].here
        return (here[upper] - here[lower]) / (self.claim.values[upper] - self.claim.values[lower])


def check(
    claims: Sequence[Claim], records: Sequence[AttackRecord], indices: Sequence[CleverRecord] = ()
) -> list[Finding]:
    """Compare claims with the records and indices of one data set.

    Example:
        >>> claim = Claim(says="", where="", quantity="sr_psnr", order=(("a",), ("b",)))
        >>> check([claim], [])[0].verdict
        'not measured'
    """
    worst = worst_case(records) if len({record.attack for record in records}) > 1 else []
    return [Finding(claim, _settings(claim, [*records, *worst], indices)) for claim in claims]


def summary_of(findings: Sequence[Finding]) -> str:
    """Say in one sentence how many statements hold here, from the findings alone."""
    checked = [finding for finding in findings if finding.settings]
    count = Counter(finding.kind for finding in checked)
    if not checked:
        return "None of the published statements could be checked with these records."
    words = {
        "agrees": ("holds here", "hold here"),
        "mixed": ("holds in some settings only", "hold in some settings only"),
        "undecided": ("is undecided with these images", "are undecided with these images"),
        "disagrees": ("does not hold here", "do not hold here"),
    }
    parts = [f"{count[kind]} {told[count[kind] > 1]}" for kind, told in words.items() if count[kind]]
    rest = len(findings) - len(checked)
    left = f"; {rest} could not be checked with these records" if rest else ""
    return f"Of {amount(len(checked), 'published statement')} {', '.join(parts)}{left}."


def _settings(claim: Claim, records: Sequence[AttackRecord], indices: Sequence[CleverRecord]) -> list[Setting]:
    """Gather, for each place where the claim can be checked, the values of every name by image."""
    places: dict[tuple[str, float | None], dict[str, dict[str, float]]] = {}
    if claim.quantity == "clever":
        for index in indices:
            places.setdefault(("", None), {}).setdefault(index.model, {})[index.image] = index.index
        return _judged(claim, places)
    for record in records:
        name, other = (record.model, record.attack) if claim.over == "model" else (record.attack, record.model)
        level = level_of(record)
        if name not in claim.names or (claim.levels and level not in claim.levels):
            continue
        # The worst case is over all attacks, so that counting it too would count one of them twice.
        if claim.over == "attack":
            left_out = (record.attack == WORST) != (WORST in claim.names)
        else:
            left_out = record.attack not in claim.attacks if claim.attacks else record.attack == WORST
        value = None if left_out else _value(record, claim.quantity)
        if value is not None:
            place = ("", None) if claim.quantity in _UNATTACKED else (other, level)
            places.setdefault(place, {}).setdefault(name, {})[record.image] = value
    return _judged(claim, places)


def _judged(claim: Claim, places: dict[tuple[str, float | None], dict[str, dict[str, float]]]) -> list[Setting]:
    settings: list[Setting] = []
    for (other, level), found in places.items():
        pairs = [pair for upper, lower in pairwise(claim.tiers) for pair in product(upper, lower)]
        if any(name not in found for pair in pairs for name in pair) or not all(name in found for name in claim.values):
            continue
        verdicts = [_verdict(claim, found[upper], found[lower]) for upper, lower in pairs]
        verdict: Verdict = (
            "disagrees" if "disagrees" in verdicts else "undecided" if "undecided" in verdicts else "agrees"
        )
        here = {name: float(np.mean(list(found[name].values()))) for name in claim.names if name in found}
        settings.append(Setting(other, level, here, verdict))
    return settings


def _verdict(claim: Claim, upper: dict[str, float], lower: dict[str, float]) -> Verdict:
    differences = [upper[image] - lower[image] for image in upper if image in lower]
    if len(differences) < 2:
        return "undecided"
    gain = bootstrap_mean(differences)
    if claim.relation == "similar":
        return "agrees" if abs(gain.mean) <= claim.tolerance else "disagrees"
    if claim.relation == "not above":
        return "disagrees" if gain.low > 0 else "agrees"
    if claim.relation == "not below":
        return "disagrees" if gain.high < 0 else "agrees"
    return "agrees" if gain.low > 0 else "disagrees" if gain.high < 0 else "undecided"


def _value(record: AttackRecord, quantity: Quantity) -> float | None:
    if quantity == "phi_spread":
        ended = record.attacked_phi_std
        return 100 * (ended / record.phi_std - 1) if record.phi_std and ended is not None else None
    if quantity == "phi_moved":
        return None if record.phi_moved is None else 100 * record.phi_moved
    return getattr(record, quantity)
