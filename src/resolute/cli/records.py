"""What commands say of lines that are no records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.markup import escape

from resolute.engine.store import BadLine, Store
from resolute.errors import BadRecordsError, ConfigError
from resolute.printing import errors
from resolute.report.page import CHECK
from resolute.studies.study import count


def tell_bad(folders: Iterable[Path], torn: bool = True) -> None:
    """Name the lines of studies, and of the checks below them, that are no records, and folders without readable ones.

    Args:
        folders: of the studies.
        torn: count those that a killed run has left torn too: no error, and nothing to mend.

    Raises:
        BadRecordsError: there are some besides torn ones.
    """
    places = dict.fromkeys(place for folder in folders for place in (folder, folder / CHECK))
    lines, bad = list[BadLine](), list[str]()
    for place in places:
        try:
            lines += Store(place).read_all()[1]
        except ConfigError as error:  # a pipe or a device in the place of records
            bad.append(str(error))
    left = sum(line.torn for line in lines)
    bad += [str(line) for line in lines if not line.torn]
    if torn and left:
        errors.print(f"{count(left, 'torn line')} of a stopped run left out; the study does what was lost again")
    for text in bad:
        errors.print(f"[yellow]left out:[/yellow] {escape(text)}", soft_wrap=True)
    if bad:
        raise BadRecordsError(
            f"{count(len(bad), 'bad line was', 'bad lines were')} left out, the rest counts; delete them, "
            "and run the study into that folder again"
        )
