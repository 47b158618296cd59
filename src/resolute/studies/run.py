"""Running a study of any kind with one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resolute.runtime import resolve_device
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.certified_iqa_summary import Results
from resolute.studies.kinds import AnyStudy, read_study
from resolute.studies.running import Progress
from resolute.studies.store import Record
from resolute.studies.study import Study


def run(
    study: str | Path | AnyStudy,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Record] | list[dict[str, Any]]:
    """Run a study, as far as its folder does not hold it yet, and return its records.

    Args:
        study: the name of a built-in study, a TOML file, or a study.
        out: folder of the results; ``runs/NAME`` if not given.
        device: a torch device; ``auto`` is ``cuda`` where there is one.
        progress: called with (work done, work in all, title of what is at work).

    Returns:
        A ``Record`` for each cell of a grid of attacks; for studies of another kind, their rows.

    Raises:
        ConfigError, CheckpointError, ImageError: the study cannot be read or planned.
        OutputError: a record cannot be written; those before it are kept.
    """
    planned = study if not isinstance(study, str | Path) else read_study(study)
    folder, found = Path(out or Path("runs") / planned.name), resolve_device(device)
    if isinstance(planned, Study):
        return planned.run(folder, device=found, progress=progress)
    if isinstance(planned, CertifiedIqa):
        planned.run(folder, device=found, progress=progress)
        return Results.read(folder).scores
    return planned.run(folder, device=found, progress=progress)
