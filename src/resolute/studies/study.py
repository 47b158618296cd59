"""A study: models x attacks x budgets x images, run cell by cell into records, resumable."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.attacks.ascent import Precision
from resolute.attacks.registry import AttackTable
from resolute.errors import ConfigError, ImageError
from resolute.files import write_text
from resolute.images import (
    SAMPLE_NAMES,
    find_images,
    from_uint8,
    image_sha256,
    read_image,
    sample_image,
    to_uint8,
    write_png,
)
from resolute.models.registry import load
from resolute.provenance import provenance
from resolute.resize import downscale, mod_crop
from resolute.studies.cell import Cell, Clean, Subject, measure
from resolute.studies.store import Record, Store, cell_key
from resolute.toml import read_toml

Progress = Callable[[float, int, str], None]


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Study:
    """A grid of models, attacks, budgets and images.

    Attributes:
        name: of the study, in reports.
        models: built-in names or weights files.
        attacks: attacks without their budgets.
        epsilons: budgets, in levels of 255.
        images: ``samples`` for the photographs inside scikit-image, or image files and folders.
        high_resolution: the images are the ground truth, to be cropped to a multiple of the scale and shrunk as
            MATLAB does; otherwise they are the low-resolution inputs themselves, and nothing is measured against truth.
        every: take each n-th image only.
        crop: cut the middle square of this many pixels out of every image first; 0 for whole images.
        scale: of the models.
        seed: of the attacks' random starts.

    Example:
        >>> Study.read("demo").models
        ('edsr-s', 'edsr-s-entropy')
    """

    name: str
    models: tuple[str, ...] = pydantic.Field(min_length=1)
    attacks: tuple[AttackTable, ...] = pydantic.Field(min_length=1)
    epsilons: tuple[float, ...] = pydantic.Field(default=(1, 2, 4, 8, 16, 32), min_length=1)
    images: tuple[str, ...] = ("samples",)
    high_resolution: bool = True
    every: int = pydantic.Field(default=1, ge=1)
    crop: int = pydantic.Field(default=0, ge=0)
    scale: int = 4
    seed: int = 0

    @staticmethod
    def read(source: str | Path) -> Study:
        """Read a study from a TOML file, or a built-in one by name.

        Raises:
            ConfigError: no such study, no valid TOML, or a key that does not exist or is out of range.
        """
        return read_toml(find_study(source), Study)

    def subjects(self) -> list[Subject]:
        """Read and prepare the images.

        Raises:
            ImageError: an image cannot be read, or is too small.
        """
        if self.images == ("samples",):
            named = [(name, sample_image(name)) for name in SAMPLE_NAMES[:: self.every]]
        else:
            files = find_images([Path(image) for image in self.images])[:: self.every]
            named = zip(_unique([file.stem for file in files]), map(read_image, files), strict=True)
        return [self.prepare(name, image) for name, image in named]

    def prepare(self, name: str, image: Float[Tensor, "3 h w"]) -> Subject:
        """Return one image as the study uses it."""
        pixels = to_uint8(image)
        if self.crop:
            top, left = (max(0, (side - self.crop) // 2) for side in pixels.shape[:2])
            pixels = pixels[top : top + self.crop, left : left + self.crop]
        if not self.high_resolution:
            return Subject(name, from_uint8(pixels).unsqueeze(0), None)
        try:
            pixels = mod_crop(pixels, self.scale)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from None
        return Subject(name, from_uint8(downscale(pixels, self.scale)).unsqueeze(0), from_uint8(pixels).unsqueeze(0))

    def cells(self, precision: Precision = "float32") -> list[Cell]:
        """Plan the study: load models and images and return its cells, image by image."""
        models = [load(model, self.scale) for model in self.models]
        attacks = [
            (table.name, table.build(level / 255, precision)) for table in self.attacks for level in self.epsilons
        ]
        planned: list[Cell] = []
        for subject in self.subjects():
            pixels = image_sha256(subject.low[0])
            truth = image_sha256(subject.truth[0]) if subject.truth is not None else ""
            for model in models:
                assert model.card is not None
                weights = model.card.sha256
                for label, attack in attacks:
                    key = cell_key(model.card.name, weights, label, repr(attack), pixels, truth, self.seed)
                    planned.append(Cell(key, model, attack, label, subject))
        return planned

    def run(
        self,
        out: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        progress: Progress | None = None,
    ) -> list[Record]:
        """Compute the cells that ``out`` does not hold yet, and return the records of all.

        Args:
            out: folder of the study.
            device: a torch device.
            precision: of the attacks' search.
            progress: called with (cells done, cells in all, title of the cell at work) after every attack step.

        Raises:
            ConfigError, CheckpointError, ImageError: the study cannot be planned.
            OutputError: a record cannot be written; those before it are kept.
        """
        store = Store(out)
        cells = self.cells(precision)
        facts = {"study": dataclasses.asdict(self), "provenance": dataclasses.asdict(provenance())}
        write_text(out / "study.json", json.dumps(facts, indent=1) + "\n")
        done = {record.key: record for record in store.read()}
        todo = [cell for cell in cells if cell.key not in done]
        clean: Clean | None = None
        for index, cell in enumerate(todo, start=len(cells) - len(todo)):

            def step(taken: int, steps: int, index: int = index, cell: Cell = cell) -> None:
                if progress is not None:
                    progress(index + taken / steps, len(cells), cell.title)

            if clean is None or not clean.belongs_to(cell):
                clean = Clean.of(cell.model.to(device), cell.subject)
            record, attacked = measure(cell, clean, self.seed, step)
            write_png(store.image_path(cell.key), attacked[0])
            store.append(record)
            done[cell.key] = record
        if progress is not None:
            progress(len(cells), len(cells), "done")
        return [done[cell.key] for cell in cells]


def find_study(source: str | Path) -> Path:
    """Return the TOML file of a study of any kind, given by path or by the name of a built-in one.

    Raises:
        ConfigError: there is none.

    Example:
        >>> find_study("demo").name
        'demo.toml'
    """
    built_in = Path(str(resources.files("resolute") / "studies")) / f"{source}.toml"
    path = built_in if built_in.is_file() else Path(source)
    if not path.is_file():
        names = ", ".join(file.stem for file in sorted(built_in.parent.glob("*.toml")))
        raise ConfigError(f"no study {str(source)!r}; give a TOML file or one of {names}")
    return path


def _unique(names: list[str]) -> list[str]:
    """Number the repetitions of a name, as files of one name in two folders have."""
    seen: Counter[str] = Counter()
    unique: list[str] = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique
