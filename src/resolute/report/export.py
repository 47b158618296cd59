"""What a person wants to have of an attack on a few images: the pictures under their own names, and the figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resolute.errors import OutputError
from resolute.files import read_regular, write_atomically, write_text
from resolute.studies.attacked import AttackRecord


def write_outputs(records: Sequence[AttackRecord], out: Path) -> list[Path]:
    """Give the pictures of records the names of their images, and write ``figures.json``; return the pictures.

    Every figure in the JSON belongs to the attacked image as saved. What an earlier run has left in the folder stays:
    the pictures of another model or attack on the same image are also called by the model.

    Raises:
        OutputError: a picture is missing, or cannot be written.
    """
    earlier = _earlier(out / "figures.json")
    rows = [row for key, row in earlier.items() if key not in {record.key for record in records}]
    taken = {stem for row in rows for stem in _stems(row)}
    written: list[Path] = []
    for record in records:
        named = record.image + "." + re.sub(r"[^\w.+=-]", "-", record.model)
        # Unlike all others, also unlike those that carry a number in their own name.
        stems = itertools.chain(
            _stems(earlier.get(record.key, {})),
            [record.image, named],
            (f"{named}-{number}" for number in itertools.count(2)),
        )
        stem = next(stem for stem in stems if stem not in taken)
        taken.add(stem)
        files = {Path(file).parts[0]: f"{stem}.{Path(file).parts[0]}.png" for file in record.files}
        for file, name in zip(record.files, files.values(), strict=True):
            if not (out / file).is_file():
                raise OutputError(f"{out / file} is missing; run the same command again")
            write_atomically(out / name, lambda path, file=file: shutil.copyfile(out / file, path))
            written.append(out / name)
        rows.append({**dataclasses.asdict(record), "files": files})
    write_text(out / "figures.json", json.dumps(rows, indent=1) + "\n")
    return written


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run by their keys; none where the file is missing or another one."""
    try:
        rows: list[dict[str, Any]] = json.loads(read_regular(path))
        return {str(row["key"]): row for row in rows if dict(row["files"])}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _stems(row: Mapping[str, Any]) -> set[str]:
    """Return what the names of a row's pictures begin with."""
    return {str(name).removesuffix(f".{kind}.png") for kind, name in row.get("files", {}).items()}
