"""What was published beside what was found here, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.figures import figure
from resolute.studies.claims import QUANTITIES, Claim, Finding, Setting
from resolute.studies.summary import attack_title, headline_level
from resolute.table import Column, Table, TableCell, Tone, row

_RELATIONS = {"above": " > ", "not above": " \u2264 ", "not below": " \u2265 ", "similar": " \u2248 "}
_TONES: dict[str, Tone] = {"agrees": "good", "disagrees": "bad"}
# So many settings are named where a statement fails; the tables have all.
_NAMED = 4


def claims_table(parts: Sequence[tuple[str, Sequence[Finding]]]) -> Table:
    """Return published statements, one a row, and what each data set, by its title, says to them."""
    columns = [Column("published"), *(Column(f"here, {title}" if title else "here") for title, _ in parts)]
    rows = [
        row(
            f"{findings[0].claim.says} [{_claimed(findings[0].claim)}; {findings[0].claim.where}]",
            *(TableCell(one.verdict, note=_found(one), tone=_TONES.get(one.kind, "unsure")) for one in findings),
        )
        for findings in zip(*(findings for _, findings in parts), strict=True)
    ]
    return Table("The paper and here", columns, rows)


def _claimed(claim: Claim) -> str:
    """Return what was published: the numbers, or the order where there are none."""
    name, unit, digits = QUANTITIES[claim.quantity]
    names = attack_title if claim.over == "attack" else str
    if claim.values:
        numbers = ", ".join(f"{names(key)} {figure(value, digits)}" for key, value in claim.values.items())
        return f"{name}: {numbers}{unit and f' {unit}'}"
    order = _RELATIONS[claim.relation].join(", ".join(map(names, tier)) for tier in claim.tiers)
    return f"{name}: {order}"


def _found(finding: Finding) -> str:
    """Return our own figures: of the only setting, or of the one nearest to 4/255, and where the statement fails."""
    if not finding.settings:
        return ""
    claim, example = finding.claim, _example(finding)
    _, unit, digits = QUANTITIES[claim.quantity]
    names = attack_title if claim.over == "attack" else str
    text = ", ".join(f"{names(name)} {figure(value, digits)}" for name, value in example.here.items())
    text += unit and f" {unit}"
    if len(finding.settings) > 1:
        text += f" ({_title(example)})"
    failing = [_title(setting) for setting in finding.settings if setting.verdict == "disagrees"]
    if failing and len(finding.settings) > len(failing):
        more = f" and {len(failing) - _NAMED} more" if len(failing) > _NAMED else ""
        text += f"; not at {', '.join(failing[:_NAMED])}{more}"
    return text


def _example(finding: Finding) -> Setting:
    levels = [setting.level for setting in finding.settings if setting.level is not None]
    if not levels:
        return finding.settings[0]
    level = headline_level(levels)
    return next(setting for setting in finding.settings if setting.level == level)


def _title(setting: Setting) -> str:
    name = attack_title(setting.other)
    return name if setting.level is None else f"{name} {setting.level:g}/255"
