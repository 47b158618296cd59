"""Records on disk: append-only JSON lines, each keyed by a hash of everything that determines it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from resolute.errors import OutputError
from resolute.files import write_text

# Raised whenever the same key could mean other numbers: a change of the attack loop, the measures or the key itself.
PROTOCOL = 1

# What a record can hold besides the PSNRs, which are always there.
FIGURES = "psnr ssim features"


@runtime_checkable
class Keyed(Protocol):
    """A line of a study's files."""

    @property
    def key(self) -> str:
        """Hash of all that determines it."""
        ...


Row = TypeVar("Row", bound=Keyed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One cell of a study: one model, one attack at one budget, one image.

    Figures are means over the one image, in dB for PSNR; None stands for infinity, where two images are equal.

    Attributes:
        key: hash of all that determines the figures.
        model: name of the model, with the defences around it.
        weights: sha256 of the model's weights.
        attack: label of the attack.
        configuration: the attack with all its settings.
        epsilon: radius of the attack on the scale of [0, 1]; times 255 for levels.
        image: name of the image.
        pixels: sha256 of the low-resolution image.
        width: of the low-resolution image, in pixels.
        height: of the low-resolution image, in pixels.
        seed: of the attack's random starts.
        clean_psnr_y: clean output against the ground truth, in dB, on Y, border shaved; None without one.
        clean_ssim_y: clean output against the ground truth, SSIM on Y, border shaved; None without one.
        attacked_psnr_y: attacked output against the ground truth, as ``clean_psnr_y``.
        attacked_ssim_y: attacked output against the ground truth, as ``clean_ssim_y``.
        lr_psnr: clean against attacked input, in dB, RGB (section 4.3).
        sr_psnr: clean against attacked output, in dB, RGB, for the attacked image as saved in 8 bits (section 4.3).
        sr_psnr_unrounded: ``sr_psnr`` before rounding the attacked image.
        sr_psnr_y: clean against attacked output, in dB, on Y, border shaved.
        sr_ssim: clean against attacked output, SSIM on Y, border shaved.
        linf: largest change of a pixel, in levels of 255.
        gradients: evaluations of the model that the search took: gradients, or values by attacks without.
        seconds: what the cell took; another figure each time.
        dataset: the set that the image belongs to; empty where it was given as a file.
        phi_mean: mean of the feature layer for the clean input; None in records of earlier versions.
        phi_std: standard deviation of the feature layer for the clean input.
        phi_range: largest less smallest value of the feature layer for the clean input.
        attacked_phi_mean: ``phi_mean`` for the attacked input.
        attacked_phi_std: ``phi_std`` for the attacked input.
        attacked_phi_range: ``phi_range`` for the attacked input.
        phi_moved: size of the features' change over the spread of the clean ones.
        measures: what was asked for; figures of other measures are None.
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
    measures: str = FIGURES

    def holds(self, measures: Sequence[str]) -> bool:
        """Tell whether this record has the figures of these measures."""
        return set(measures) <= set(self.measures.split())

    def figures(self) -> dict[str, object]:
        """Return all but what it cost, which is another one each time."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "seconds"}


def cell_key(*parts: object) -> str:
    """Return the key of a cell from everything that determines its figures."""
    return hashlib.sha256(json.dumps([PROTOCOL, *parts], default=str).encode()).hexdigest()[:24]


class Store:
    """The records of a study in one folder, and the attacked images beside them.

    Every process that works on the study writes a file of its own, ``records.jsonl``, ``records-2.jsonl`` and so on
    (see ``Journal``); they are read as one.

    Example:
        >>> import tempfile
        >>> Store(Path(tempfile.mkdtemp())).read()
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image_path(self, key: str) -> Path:
        """Return where the attacked image of a cell lies."""
        return self.folder / "attacked" / f"{key}.png"

    def read(self) -> list[Record]:
        """Return all whole records, each key once, in the order of the plan.

        A line torn by a killed run is left out, and is computed again by the next. Of several records of one key, as
        two runs at once may leave where the file system has no locks, the same one is chosen whatever their order.
        """
        return read_rows(self.folder, "records", Record, _rank)

    def write_order(self, keys: Sequence[str]) -> None:
        """Say in which order the cells were planned, so that tables look the same whoever finished first.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(self.folder / "order.json", json.dumps(keys) + "\n")


def read_rows(folder: Path, stem: str, kind: Callable[..., Row], rank: Callable[[Row], Any]) -> list[Row]:
    """Return what all processes have written under one name, each key once, in the order of the last plan.

    Args:
        folder: of the study.
        stem: of the files' names.
        kind: what a line holds; lines that are no such thing are left out.
        rank: of several rows of one key the one of the highest rank is taken.
    """
    found: dict[str, Row] = {}
    for file in files_of(folder, stem):
        for line in read_lines(file):
            try:
                row = kind(**line)
            except TypeError:
                continue
            known = found.get(row.key)
            if known is None or rank(row) > rank(known):
                found[row.key] = row
    try:
        keys: object = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a folder of an earlier version, whose one file is in order
        keys = None
    order = {key: place for place, key in enumerate(cast("list[str]", keys))} if isinstance(keys, list) else {}
    return [found[key] for key in sorted(found, key=lambda key: order.get(key, len(order)))]


def _rank(record: Record) -> tuple[int, str, float]:
    return len(record.measures.split()), json.dumps(record.figures(), sort_keys=True), -record.seconds


def files_of(folder: Path, stem: str) -> list[Path]:
    """Return the files of JSON lines that all processes have written under one name.

    Example:
        >>> files_of(Path("no-such-folder"), "records")
        []
    """
    return [path for path in (folder / f"{stem}.jsonl", *sorted(folder.glob(f"{stem}-*.jsonl"))) if path.exists()]


def torn_lines(folder: Path) -> int:
    """Return how many lines of records were torn by a killed run or a full disk."""
    return sum(
        bool(line.strip())
        for file in files_of(folder, "records")
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if parsed(line) is None
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; torn ones are left out, and a missing file has none."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [content for line in lines if (content := parsed(line)) is not None]


def parsed(line: str | bytes) -> dict[str, Any] | None:
    """Return what a line of JSON holds; None where it is torn."""
    try:
        content: object = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def append_line(path: Path, *contents: Mapping[str, object]) -> None:
    """Append JSON lines in one go, on lines of their own even after a torn one, and see them to the disk.

    Raises:
        OutputError: they cannot be written.
    """
    text = "".join(json.dumps(content, allow_nan=False) + "\n" for content in contents)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; what was computed so far is kept, free some room and "
            "run the same command again"
        ) from None
