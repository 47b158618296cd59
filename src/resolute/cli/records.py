"""What commands say of lines that are no records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.markup import escape

from resolute.engine.store import BadLine, Store
from resolute.errors import BadRecordsError
from resolute.printing import errors
from resolute.report.page import CHECK
from resolute.studies.study import count


def bad_lines(folders: Iterable[Path]) -> list[BadLine]:
    """Return the lines of studies that are no records, those of the checks below them too."""
    places = dict.fromkeys(place for folder in folders for place in (folder, folder / CHECK))
    return [line for place in places for line in Store(place).read_all()[1]]


def tell_torn(lines: Sequence[BadLine]) -> None:
    """Say how many lines a killed run has left torn: no error, and nothing to mend."""
    torn = sum(line.torn for line in lines)
    if torn:
        errors.print(f"{count(torn, 'torn line')} of a stopped run left out; the study does what was lost again")


def refuse_bad(lines: Sequence[BadLine]) -> None:
    """Name all other lines that are no records.

    Raises:
        BadRecordsError: there are some.
    """
    bad = [line for line in lines if not line.torn]
    for line in bad:
        errors.print(f"[yellow]left out:[/yellow] {escape(str(line))}", soft_wrap=True)
    if bad:
        raise BadRecordsError(
            f"{count(len(bad), 'bad line was', 'bad lines were')} left out, the rest counts; delete them, "
            "and run the study into that folder again"
        )
