"""Records on disk: append-only JSON lines, each keyed by a hash of everything that determines it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from resolute.errors import OutputError

# Raised whenever the same key could mean other numbers: a change of the attack loop, the measures or the key itself.
PROTOCOL = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One cell of a study: one model, one attack at one budget, one image.

    Figures are means over the one image, in dB for PSNR; None stands for infinity, where two images are equal.

    Attributes:
        key: hash of all that determines the figures.
        model, weights: name, and sha256 of the weights.
        attack, configuration: label, and ``repr`` of the attack.
        epsilon: radius on the scale of [0, 1].
        image, pixels: name, and sha256 of the low-resolution image.
        width, height: of the low-resolution image.
        seed: of the attack.
        clean_psnr_y, clean_ssim_y: clean output against the ground truth; None without one.
        attacked_psnr_y, attacked_ssim_y: attacked output against the ground truth; None without one.
        lr_psnr: clean against attacked input, RGB (section 4.3).
        sr_psnr: clean against attacked output, RGB, for the attacked image as saved in 8 bits (section 4.3).
        sr_psnr_unrounded: the same before rounding the attacked image.
        sr_psnr_y, sr_ssim: clean against attacked output on Y, border shaved.
        linf: largest change of a pixel, in levels of 255.
        gradients, seconds: what the search cost.
        dataset: the set that the image belongs to; empty where it was given as a file.
        phi_mean, phi_std, phi_range: of the feature layer for the clean input; None in records of earlier versions.
        attacked_phi_mean, attacked_phi_std, attacked_phi_range: the same for the attacked input.
        phi_moved: size of the features' change over the spread of the clean ones.
    """

    key: str
    model: str
    weights: str
    attack: str
    configuration: str
    epsilon: float
    image: str
    pixels: str
    width: int
    height: int
    seed: int
    clean_psnr_y: float | None
    clean_ssim_y: float | None
    attacked_psnr_y: float | None
    attacked_ssim_y: float | None
    lr_psnr: float | None
    sr_psnr: float | None
    sr_psnr_unrounded: float | None
    sr_psnr_y: float | None
    sr_ssim: float | None
    linf: float
    gradients: int
    seconds: float
    dataset: str = ""
    phi_mean: float | None = None
    phi_std: float | None = None
    phi_range: float | None = None
    attacked_phi_mean: float | None = None
    attacked_phi_std: float | None = None
    attacked_phi_range: float | None = None
    phi_moved: float | None = None


def cell_key(*parts: object) -> str:
    """Return the key of a cell from everything that determines its figures."""
    return hashlib.sha256(json.dumps([PROTOCOL, *parts], default=str).encode()).hexdigest()[:24]


class Store:
    """The records of a study in one folder, and the attacked images beside them.

    Example:
        >>> import tempfile
        >>> Store(Path(tempfile.mkdtemp())).read()
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "records.jsonl"

    def image_path(self, key: str) -> Path:
        """Return where the attacked image of a cell lies."""
        return self.folder / "attacked" / f"{key}.png"

    def read(self) -> list[Record]:
        """Return all whole records; a line torn by a killed run is left out, and is computed again by the next."""
        records: dict[str, Record] = {}
        for line in read_lines(self.path):
            try:
                record = Record(**line)
            except TypeError:
                continue
            records[record.key] = record
        return list(records.values())

    def append(self, record: Record) -> None:
        """Write a record so that a killed process loses at most this one.

        Raises:
            OutputError: the record cannot be written.
        """
        append_line(self.path, dataclasses.asdict(record))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; torn ones are left out, and a missing file has none."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content: object = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            found.append(cast("dict[str, Any]", content))
    return found


def append_line(path: Path, content: Mapping[str, object]) -> None:
    """Append one JSON line, on a line of its own even after a torn one, and see it to the disk.

    Raises:
        OutputError: the line cannot be written.
    """
    line = json.dumps(content, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; what was computed so far is kept, free some room and "
            "run the same command again"
        ) from None
