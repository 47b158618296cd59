"""Gates: bounds that the figures of a study must keep, for continuous integration."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final
from xml.etree import ElementTree

import numpy as np

from resolute.chart import BICUBIC
from resolute.errors import ConfigError
from resolute.figures import figure
from resolute.files import write_text
from resolute.studies.record import Record, grouped
from resolute.studies.results import Measured, Quantity
from resolute.studies.study import Compared, Study, count
from resolute.table import Column, Table, TableCell, row


@final
@dataclasses.dataclass(frozen=True)
class Gate:
    """A bound on one figure.

    Attributes:
        text: as it was typed.
        quantity: of the study, in lower case with hyphens, as ``attacked-psnr``.
        where: what the setting of a record must hold, as ``4/255`` or ``severity=3``.
        bound: the figure must not be below it; where lower is better, not above.
    """

    text: str
    quantity: str
    where: tuple[str, ...]
    bound: float

    def holds_for(self, setting: Mapping[str, str]) -> bool:
        """Return whether records of a setting count."""
        known = {f"{name}={value}".lower() for name, value in setting.items()} | {v.lower() for v in setting.values()}
        return all(part.lower() in known for part in self.where)


@final
@dataclasses.dataclass(frozen=True)
class Passage:
    """What came of a gate for one subject, such as a model.

    Attributes:
        gate: the gate.
        subject: what went through it.
        quantity: what is bounded.
        value: mean over images; over those where it is finite, so that one infinite figure hides no other.
        images: how many these are.
        equal: on how many of them it is infinitely good, as the PSNR of equal images, which keeps any bound.
    """

    gate: Gate
    subject: str
    quantity: Quantity
    value: float
    images: int
    equal: int = 0

    @property
    def passed(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.value <= self.gate.bound if self.quantity.lower_better else self.value >= self.gate.bound

    def words(self) -> str:
        """Return what came of it in a sentence."""
        value, bound = (figure(number, self.quantity.digits) for number in (self.value, self.gate.bound))
        sign = "at most" if self.quantity.lower_better else "at least"
        return f"{self.subject}: {self.gate.text}: {value} {self.quantity.unit}".rstrip() + f", must be {sign} {bound}"


def parse_gate(text: str) -> Gate:
    """Return a gate from ``QUANTITY[@SETTING,...]=BOUND``.

    Raises:
        ConfigError: it is none.

    Example:
        >>> parse_gate("attacked-psnr@4/255=24.5").where
        ('4/255',)
    """
    left, sign, number = text.rpartition("=")
    quantity, _, where = left.partition("@")
    match = re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", number)
    if not sign or not quantity.strip() or not match:
        raise ConfigError(f"a gate is QUANTITY[@SETTING]=BOUND, such as attacked-psnr@4/255=24.5, not {text!r}")
    parts = tuple(part.strip() for part in where.split(",") if part.strip())
    return Gate(text.strip(), slug(quantity), parts, float(number))


def slug(name: str) -> str:
    """Return a quantity as gates name it.

    Example:
        >>> slug("attacked PSNR")
        'attacked-psnr'
    """
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def check_gates(study: Study, gates: Sequence[Gate]) -> None:
    """Refuse gates on what a study does not measure, before it is run.

    Raises:
        ConfigError: the study measures nothing, or no such thing.
    """
    if not gates:
        return
    if not isinstance(study, Compared):
        raise ConfigError(f"the study {study.name} has no figures for --fail-under")
    known = [slug(quantity.name) for quantity in study.quantities([])]
    for gate in gates:
        if known and gate.quantity not in known:
            raise ConfigError(f"--fail-under {gate.text}: the quantities here are {', '.join(known)}")


def pass_gates(study: Study, records: Sequence[Record], gates: Sequence[Gate]) -> list[Passage]:
    """Return what comes of gates, for every subject but bicubic interpolation.

    Of what a gate leaves open, the worst counts on every image where the study is an attacker's choice
    (``Compared.worst_of``), and the mean otherwise; then the mean over images.

    Raises:
        ConfigError: no record is of that setting, or none has that figure.
    """
    check_gates(study, gates)
    assert not gates or isinstance(study, Compared)
    found: list[Passage] = []
    for gate in gates:
        assert isinstance(study, Compared)
        quantity = next(one for one in study.quantities(records) if slug(one.name) == gate.quantity)
        seen = [(record, measured) for record in records if (measured := study.measured(record)) is not None]
        own = [one for one in seen if gate.holds_for(one[1].setting)]
        if not own:
            known = sorted({f"{n}={v}" for _, m in seen for n, v in m.setting.items() if v})
            raise ConfigError(
                f"--fail-under {gate.text}: nothing here is of that setting; there are {', '.join(known)}"
            )
        for subject, theirs in grouped(own, lambda one: one[1].setting.get("model", one[0].model)).items():
            if subject == BICUBIC and len({one[0].model for one in own}) > 1:
                continue
            each = [
                value
                for on_image in grouped(theirs, lambda one: (one[0].dataset, one[0].image)).values()
                if (value := _of_image([m for _, m in on_image], quantity, study.worst_of)) is not None
            ]
            if not each:
                raise ConfigError(f"--fail-under {gate.text}: {subject} has no such figure on any image")
            equal = each.count(_best(quantity))
            found.append(Passage(gate, subject, quantity, _mean(each, quantity), len(each), equal))
    return found


def _of_image(measured: Sequence[Measured], quantity: Quantity, worst_of: Sequence[str]) -> float | None:
    worst = max if quantity.lower_better else min
    alike = grouped(measured, lambda one: tuple(v for name, v in one.setting.items() if name not in worst_of))
    nothing = (math.inf if quantity.lower_better else -math.inf) if quantity.unknown_worst else None
    figures = [[one.values.get(quantity.name) for one in own] for own in alike.values()]
    values = [[v for one in own if (v := nothing if one is None else one) is not None] for own in figures]
    known = [worst(own) for own in values if own]
    return _mean(known, quantity) if known else None


def _best(quantity: Quantity) -> float:
    return -math.inf if quantity.lower_better else math.inf


def _mean(values: Sequence[float], quantity: Quantity) -> float:
    """Return the mean of those that are not infinitely good; infinity where all are."""
    others = [value for value in values if value != _best(quantity)]
    return float(np.mean(others)) if others else _best(quantity)


def gates_table(passages: Sequence[Passage]) -> Table:
    """Return what came of gates, a row each."""
    columns = [Column("gate"), Column("of"), Column("figure"), Column("bound"), Column("images"), Column("passed")]
    rows = [
        row(
            one.gate.text, one.subject, round(one.value, one.quantity.digits), one.gate.bound,
            TableCell(one.images, note=f"{one.equal} infinite" if one.equal else ""),
            TableCell(one.passed, tone="good" if one.passed else "bad"), tone="" if one.passed else "bad",
        )
        for one in passages
    ]  # fmt: skip
    failed = sum(not one.passed for one in passages)
    title = f"{count(failed, 'gate')} of {len(passages)} failed" if failed else f"{count(len(passages), 'gate')} passed"
    words = "Infinite: two images are equal, which keeps the bound; the figure is the mean over the others."
    return Table(title, columns, rows, caption=words if any(one.equal for one in passages) else "")


def write_junit(passages: Sequence[Passage], path: Path, name: str) -> None:
    """Write what came of gates as JUnit XML, which servers for continuous integration read."""
    failed = sum(not one.passed for one in passages)
    facts = {"name": _plain(f"resolute {name}"), "tests": str(len(passages)), "failures": str(failed), "errors": "0"}
    suite = ElementTree.Element("testsuite", facts)
    for one in passages:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _plain(one.subject), "name": _plain(one.gate.text)}
        )
        if not one.passed:
            ElementTree.SubElement(case, "failure", {"message": _plain(one.words())})
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def _plain(text: str) -> str:
    """Return a text without what XML cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
