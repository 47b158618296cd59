"""Published networks in the order of what they keep under attack, with what stands beside them without a rank."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import final

from resolute.chart import BICUBIC
from resolute.figures import figure
from resolute.leaderboard.empirical import Empirical
from resolute.leaderboard.entry import Entry
from resolute.leaderboard.network import Network
from resolute.studies.peers import MARGIN, MIX
from resolute.studies.study import count
from resolute.studies.summary import HEADLINE, WORST

# The attack that only draws at random, as the suite calls it.
FLOOR = "random signs"


@final
@dataclasses.dataclass(frozen=True)
class Placed:
    """One row of the leaderboard.

    Attributes:
        entry: its figures.
        network: its facts; None for bicubic interpolation and mixtures with it.
        rank: among those that have one, from 1.
        why: it has none; empty where it has one.
    """

    entry: Entry
    network: Network | None
    rank: int | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """What readers call it."""
        return self.network.name if self.network is not None else self.entry.model.name

    @property
    def clean(self) -> float:
        """PSNR against the truth without an attack, in dB."""
        figures = self.worst(HEADLINE)
        return figures.clean_psnr.mean if figures is not None and figures.clean_psnr is not None else 0.0

    def worst(self, level: float) -> Empirical | None:
        """Return what the worst attack on each image leaves at a budget in levels of 255; None where it was not run."""
        return self.under(WORST, level)

    def under(self, attack: str, level: float) -> Empirical | None:
        """Return what an attack leaves at a budget in levels of 255; None where it was not run."""
        return next((one for one in self.entry.empirical if (one.attack, one.level) == (attack, level)), None)

    def kept(self, level: float = HEADLINE) -> float | None:
        """Return the mean PSNR against the truth under the worst attack, in dB; None where it was not run."""
        figures = self.worst(level)
        return None if figures is None or figures.attacked_psnr is None else figures.attacked_psnr.mean


def ranking(entries: Mapping[str, Entry], networks: Mapping[str, Network]) -> list[Placed]:
    """Return a row for every entry, those with a rank first.

    Without a rank are bicubic interpolation and its mixtures, networks whose facts say so, networks that are not
    clearly better than bicubic interpolation without an attack, and all but the first of several with equal weights.

    Args:
        entries: by the ids of the networks.
        networks: facts, by the same ids; an entry without facts is one to compare with.
    """
    bicubic = next((entry for entry in entries.values() if is_bicubic(entry)), None)
    base = None if bicubic is None else Placed(bicubic, None).clean
    first: dict[str, Network] = {}
    rows: list[Placed] = []
    for id, entry in entries.items():
        row = Placed(entry, networks.get(id))
        rows.append(dataclasses.replace(row, why=_why(row, base, first)))
        if row.network is not None and entry.model.sha256:
            first.setdefault(entry.model.sha256, row.network)
    order = sorted((row for row in rows if not row.why), key=lambda row: -(row.kept() or 0.0))
    ranked = [dataclasses.replace(row, rank=place) for place, row in enumerate(order, start=1)]
    rest = sorted((row for row in rows if row.why), key=lambda row: -(row.kept() or 0.0))
    return [*ranked, *rest]


def is_bicubic(entry: Entry) -> bool:
    """Tell whether an entry is of bicubic interpolation itself, which has no weights."""
    return entry.model.name == BICUBIC and not entry.model.sha256


def _why(row: Placed, base: float | None, first: Mapping[str, Network]) -> str:
    if row.network is None:
        mixed = MIX in row.entry.model.name
        return "a mixture with bicubic interpolation, to compare with" if mixed else "to compare with"
    if row.network.reference:
        return row.network.reference
    if row.entry.model.sha256 in first:
        return f"the weights of {first[row.entry.model.sha256].title}"
    if base is not None and row.clean < base + MARGIN:
        return f"clean PSNR not {MARGIN} dB above the {figure(base)} dB of bicubic interpolation"
    return "" if row.kept() is not None else f"not attacked at {HEADLINE:g}/255"


def sentences(rows: Sequence[Placed], waiting: int = 0) -> list[str]:
    """Return what the ranking says, how bicubic interpolation compares first.

    Args:
        rows: of ``ranking``.
        waiting: networks that are not measured to the end yet.
    """
    ranked = [(row, kept) for row in rows if row.rank is not None and (kept := row.kept()) is not None]
    told: list[str] = []
    if ranked:
        best, most = ranked[0]
        kept = [value for _, value in ranked]
        bicubic = next((value for row in rows if is_bicubic(row.entry) and (value := row.kept()) is not None), None)
        where = f"at {HEADLINE:g}/255"
        median = (
            f"their median is {figure(statistics.median(kept))} dB and the best, {best.name}, has {figure(most)} dB"
        )
        if bicubic is None:
            told.append(
                f"Bicubic interpolation is not measured yet; of {count(len(ranked), 'network')} {where} {median}."
            )
        else:
            below = sum(value < bicubic for value in kept)
            whom = f"{below} of {count(len(kept), 'network')}" if below < len(kept) else f"all of {len(kept)} networks"
            told.append(
                f"Attacked {where}, bicubic interpolation keeps {figure(bicubic)} dB against the truth, more than "
                f"{whom}: {median}."
            )
    if waiting:
        told.append(f"{count(waiting, 'network')} more {'is' if waiting == 1 else 'are'} not measured yet.")
    return told
