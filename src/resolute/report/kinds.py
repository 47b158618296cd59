"""Which page belongs to which kind of study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.report.assets import MEGABYTES
from resolute.report.hardening import write_hardening
from resolute.report.markdown import write_markdown
from resolute.report.page import write_report
from resolute.report.study_page import write_study_markdown, write_study_page
from resolute.studies.grid import Grid
from resolute.training.hardened import RESULT


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
    if Store(folders[0]).facts().get("kind", Grid.kind) == Grid.kind:
        return write_markdown(folders, out) if out.suffix == ".md" else write_report(folders, out, megabytes=megabytes)
    if out.suffix == ".md":
        return write_study_markdown(folders, out)
    return write_study_page(folders, out, megabytes=megabytes)
