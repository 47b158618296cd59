"""Which page belongs to which kind of study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.report.assets import MEGABYTES
from resolute.report.hardening import write_hardening
from resolute.report.markdown import write_markdown
from resolute.report.page import write_report
from resolute.studies.grid import Grid
from resolute.training.hardened import RESULT


@runtime_checkable
class PageWriter(Protocol):
    """Writes the page of studies of one kind, no larger than so many megabytes where that can be had."""

    def __call__(self, folders: Sequence[Path], out: Path, *, megabytes: float = MEGABYTES) -> Path:
        """Write the page and return its path."""
        ...


# Of each kind the writer of the page and that of the Markdown.
WRITERS: dict[str, tuple[PageWriter, Callable[[Sequence[Path], Path], Path]]] = {
    Grid.kind: (write_report, write_markdown),
}


def write_any(folders: Sequence[Path], out: Path, megabytes: float = MEGABYTES) -> Path:
    """Write the page, or Markdown where ``out`` ends in .md, of studies of one kind or of a hardening; return the path.

    Args:
        folders: of the studies.
        out: the file to write.
        megabytes: that a page may take, in millions of bytes.

    Raises:
        ConfigError: studies of several kinds, or of one that this version does not know; no results.
        OutputError: the file cannot be written.
    """
    if (folders[0] / RESULT).is_file():
        if len(folders) > 1 or out.suffix == ".md":
            raise ConfigError("a hardening has a page of its own: name its folder alone, and a page that ends in .html")
        return write_hardening(folders[0], out)
    kinds = list(dict.fromkeys(str(Store(folder).facts().get("kind", Grid.kind)) for folder in folders))
    if len(kinds) > 1:
        raise ConfigError(f"these are studies of several kinds, {' and '.join(kinds)}; report on each kind by itself")
    if kinds[0] not in WRITERS:
        raise ConfigError(f"{folders[0]} holds a study of the kind {kinds[0]!r}; known are {', '.join(WRITERS)}")
    page, markdown = WRITERS[kinds[0]]
    return markdown(folders, out) if out.suffix == ".md" else page(folders, out, megabytes=megabytes)
