"""Writing the page, or the Markdown, of whatever a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resolute.errors import ConfigError
from resolute.report.assets import MEGABYTES
from resolute.report.hardening import write_hardening
from resolute.report.page import write_markdown, write_page
from resolute.training.hardened import RESULT


def write_report(folders: Sequence[Path | str], out: Path | str, *, megabytes: float = MEGABYTES) -> Path:
    """Write the page, or Markdown where ``out`` ends in .md, of studies or of a hardening; return the path.

    Args:
        folders: of the studies; the records of those of one kind are merged, other kinds follow.
        out: the file to write.
        megabytes: that a page may take, in millions of bytes; pictures are left out, the mildest first.

    Raises:
        ConfigError: a kind of study that this version does not know; no results; ``out`` ends otherwise.
        OutputError: the file cannot be written.
    """
    folders, out = [Path(folder) for folder in folders], Path(out)
    if out.suffix not in (".html", ".md"):
        raise ConfigError(f"{out.name} ends in neither .html nor .md, the two forms of a report")
    if folders and (folders[0] / RESULT).is_file():
        if len(folders) > 1 or out.suffix == ".md":
            raise ConfigError("a hardening has a page of its own: name its folder alone, and a page that ends in .html")
        return write_hardening(folders[0], out)
    return write_markdown(folders, out) if out.suffix == ".md" else write_page(folders, out, megabytes=megabytes)
