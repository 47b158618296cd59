"""What a person wants to have of an attack on a few images: the pictures under their own names, and the figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from resolute.errors import OutputError
from resolute.files import write_atomically, write_text
from resolute.studies.attacked import AttackRecord


def write_outputs(records: Sequence[AttackRecord], out: Path) -> list[Path]:
    """Give the pictures of records the names of their images, and write ``figures.json``; return the pictures.

    Every figure in the JSON belongs to the attacked image as saved.

    Raises:
        OutputError: a picture is missing, or cannot be written.
    """
    taken = set[str]()
    written: list[Path] = []
    rows: list[dict[str, object]] = []
    for record in records:
        # Unlike all others, also unlike those that carry a number in their own name.
        stems = itertools.chain([record.image], (f"{record.image}-{number}" for number in itertools.count(2)))
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
