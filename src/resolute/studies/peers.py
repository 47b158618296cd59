"""Published networks that went through the standard suite, and where another model stands among them."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.chart import BICUBIC
from resolute.figures import figure
from resolute.studies.attacked import AttackRecord
from resolute.studies.record import grouped
from resolute.studies.summary import HEADLINE, level_of, summarize, worst_case

FILE = "peers.json"
# Marks a mixture with bicubic interpolation in a name; the network's share stands behind it.
MIX = "+mix="
# A network has to be so much better than bicubic interpolation without an attack, in dB, to be ranked under one.
MARGIN = 0.5

_Levels = dict[float, float]


@final
@dataclass(frozen=True)
class Peer:
    """Mean figures of one network, mixture or interpolation, in dB, by budgets in levels of 255.

    Attributes:
        name, year: of the network.
        weights: first digits of the sha256 of its weights.
        clean: PSNR against the truth without an attack, on Y.
        attacked: the same under the worst attack on each image.
        sr_psnr: under the worst attack on each image; a budget is missing where no output moved.
    """

    name: str
    year: int
    weights: str
    clean: float
    attacked: _Levels
    sr_psnr: _Levels


@final
@dataclass(frozen=True)
class Peers:
    """What a model is compared with, if it went through the same.

    Attributes:
        suite: hash of all attacks, budgets and images, see ``suite_hash``.
        networks: those that are ranked.
        bicubic: interpolation itself; None where it was not measured.
        mixtures: of networks with bicubic interpolation, named as records name them.
    """

    suite: str
    networks: tuple[Peer, ...]
    bicubic: Peer | None = None
    mixtures: tuple[Peer, ...] = ()

    def mixture_at(self, clean: float, level: float) -> float | None:
        """Return the attacked PSNR of the best mixture with this clean PSNR; None where none has it.

        Between two shares of a network it is interpolated, from bicubic interpolation to the network itself.
        """
        lines = grouped(self.mixtures, lambda one: one.name.partition(MIX)[0])
        found: list[float] = []
        for own in lines.values():
            ends = [*own, *([self.bicubic] if self.bicubic is not None else [])]
            points = sorted((one.clean, one.attacked[level]) for one in ends if level in one.attacked)
            for (left, below), (right, above) in pairwise(points):
                if left <= clean <= right and left < right:
                    found.append(below + (above - below) * (clean - left) / (right - left))
        return max(found, default=None)


def suite_hash(records: Sequence[AttackRecord]) -> str:
    """Return a hash that is equal for two models which went through the same attacks, budgets and images.

    Args:
        records: of one model.

    Example:
        >>> suite_hash([])[:8]
        '4f53cda1'
    """
    cells = {(one.attack, one.configuration, level_of(one), one.seed, one.pixels) for one in records}
    return hashlib.sha256(json.dumps(sorted(cells)).encode()).hexdigest()


def peer_of(records: Sequence[AttackRecord], name: str, year: int) -> Peer | None:
    """Return the mean figures of one model from its records; None where there is no ground truth."""
    rows = summarize(worst_case(records))
    clean = next((row.clean_psnr_y for row in rows if row.clean_psnr_y is not None), None)
    if clean is None:
        return None
    attacked = {row.level: round(row.attacked_psnr_y, 3) for row in rows if row.attacked_psnr_y is not None}
    kept = {row.level: round(row.sr_psnr, 3) for row in rows if row.sr_psnr is not None}
    return Peer(name, year, records[0].weights[:16], round(clean, 3), attacked, kept)


def read_peers() -> Peers | None:
    """Return the networks that come with this package; None where there are none."""
    file = resources.files("resolute.studies") / FILE
    return _ADAPTER.validate_json(file.read_bytes()) if file.is_file() else None


def peers_text(peers: Peers) -> str:
    """Return the file that ``read_peers`` reads, a line a network."""
    content = _ADAPTER.dump_python(peers, mode="json")
    parts = ("networks", "mixtures")
    lists = [
        f' "{part}": [\n' + ",\n".join(f"  {json.dumps(one)}" for one in content.pop(part)) + "\n ]" for part in parts
    ]
    return "{\n" + ",\n".join([*(f' "{key}": {json.dumps(value)}' for key, value in content.items()), *lists]) + "\n}\n"


def placed(records: Sequence[AttackRecord], peers: Peers | None) -> list[str]:
    """Say where every model stands among the published networks, if it went through the same as they.

    Bicubic interpolation and mixtures with it stand beside them and are not placed.
    """
    if peers is None:
        return []
    found: list[str] = []
    for name, own in grouped(records, lambda one: one.model).items():
        if name == BICUBIC or MIX in name or suite_hash(own) != peers.suite:
            continue
        one = peer_of(own, name, 0)
        if one is not None and HEADLINE in one.attacked:
            found.append(_place(one, peers))
    return list(filter(None, found))


def _place(one: Peer, peers: Peers) -> str:
    base, kept = peers.bicubic, one.attacked[HEADLINE]
    if base is not None and one.clean < base.clean + MARGIN:
        return (
            f"{one.name} is not ranked among the published networks: its clean PSNR, {figure(one.clean)} dB, is not "
            f"{MARGIN} dB above the {figure(base.clean)} dB of bicubic interpolation."
        )
    others = [other for other in peers.networks if not one.weights or other.weights != one.weights]
    theirs = [other.attacked[HEADLINE] for other in others if HEADLINE in other.attacked]
    if not theirs:
        return ""
    place, number = 1 + sum(value > kept for value in theirs), len(theirs) + 1
    text = (
        f"{one.name} ranks {ordinal(place)} of {number} with the published networks, by the PSNR against the truth "
        f"under the worst attack at {HEADLINE:g}/255: {figure(kept)} dB, where their median is "
        f"{figure(statistics.median(theirs))} and the best has {figure(max(theirs))}"
    )
    beside = peers.mixture_at(one.clean, HEADLINE)
    if beside is not None:
        text += f"; a mixture with bicubic interpolation of equal clean PSNR has {figure(beside)} dB"
    if base is not None and HEADLINE in base.attacked:
        text += f", bicubic interpolation itself {figure(base.attacked[HEADLINE])} dB"
    return f"{text}."


def ordinal(number: int) -> str:
    """Return a rank in words of figures.

    Example:
        >>> [ordinal(number) for number in (1, 2, 3, 11, 12, 23, 101)]
        ['1st', '2nd', '3rd', '11th', '12th', '23rd', '101st']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


_ADAPTER = pydantic.TypeAdapter(Peers)
