"""A study: models x attacks x budgets x images, run cell by cell into records, resumable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Literal

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.attacks.ascent import Precision
from resolute.attacks.registry import AttackTable
from resolute.defences import load_defended
from resolute.errors import ConfigError, ImageError
from resolute.files import write_text
from resolute.images import from_uint8, image_sha256, to_uint8
from resolute.provenance import provenance
from resolute.resize import downscale, mod_crop
from resolute.studies.cell import Cell, Subject
from resolute.studies.claims import Claim
from resolute.studies.conventions import conventions
from resolute.studies.datasets import Photo, find_photos
from resolute.studies.plan import Plan
from resolute.studies.quick import Quick
from resolute.studies.running import Machine, Progress, Tally, finished, run_here
from resolute.studies.steepness import CleverTable, Probe
from resolute.studies.store import Record, Store, cell_key
from resolute.studies.work import Found
from resolute.studies.workers import Workers
from resolute.toml import located, read_toml


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Study:
    """A grid of models, attacks, budgets and images.

    Attributes:
        name: of the study, in reports.
        models: built-in names or weights files, with input-time defences behind a plus: ``edsr-s+mix=0.75``.
        attacks: attacks without their budgets.
        epsilons: budgets, in levels of 255.
        images: ``samples`` for the photographs inside scikit-image, names of data sets, or image files and folders;
            see ``find_photos``.
        high_resolution: the images are the ground truth, to be cropped to a multiple of the scale and shrunk as
            MATLAB does; otherwise they are the low-resolution inputs themselves, and nothing is measured against truth.
        every: take each n-th image only, of every data set.
        crop: cut the middle square of this many pixels out of every image first; 0 for whole images.
        scale: of the models.
        seed: of the attacks' random starts.
        seeds: several of them, each a cell of its own; empty for the one above.
        measures: what a record holds besides the PSNRs; ``clever`` takes the CLEVER index of every model and image.
        clever: how the index is taken, which asks for it too; None for the usual way where ``measures`` asks.
        question: what is asked, and what it repeats, in a sentence.
        expected: what was published about it.
        quick: what the quick form does with less; None where there is none.

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
    seeds: tuple[int, ...] = ()
    measures: tuple[Literal["psnr", "ssim", "features", "clever"], ...] = ("psnr", "ssim", "features")
    clever: CleverTable | None = None
    question: str = ""
    expected: tuple[Claim, ...] = ()
    quick: Quick | None = None

    @staticmethod
    def read(source: str | Path) -> Study:
        """Read a study from a TOML file, or a built-in one by name.

        Raises:
            ConfigError: no such study, no valid TOML, or a key that does not exist or is out of range.
        """
        path = find_study(source)
        return checked_attacks(path, read_toml(path, Study))

    def quickly(self) -> Study:
        """Return the quick form: the same question, with fewer images, budgets and steps.

        Raises:
            ConfigError: the study has none.

        Example:
            >>> Study.read("lambda").quickly().images
            ('samples',)
        """
        if self.quick is None:
            raise ConfigError(f"the study {self.name} has no quick form; leave out --quick")
        quick = self.quick
        return dataclasses.replace(
            self,
            name=f"{self.name}-quick",
            models=quick.models or self.models,
            attacks=tuple(map(quick.lighten, self.attacks)),
            epsilons=quick.epsilons or self.epsilons,
            images=quick.images or self.images,
            every=quick.every or self.every,
            crop=self.crop if quick.crop is None else quick.crop,
            clever=quick.lighten_clever(self.clever),
            quick=None,
        )

    def photos(self) -> list[Photo]:
        """Return the photographs that the study is about, unread.

        Raises:
            ImageError: a data set or a file is not to be found.
        """
        return find_photos(self.images, self.every)

    def subjects(self) -> list[Subject]:
        """Read and prepare the images.

        Raises:
            ImageError: an image cannot be found or read, or is too small.
        """
        return [self.prepare(photo.name, photo.read(), photo.dataset) for photo in self.photos()]

    def prepare(self, name: str, image: Float[Tensor, "3 h w"], dataset: str = "") -> Subject:
        """Return one image as the study uses it."""
        pixels = to_uint8(image)
        if self.crop:
            top, left = (max(0, (side - self.crop) // 2) for side in pixels.shape[:2])
            pixels = pixels[top : top + self.crop, left : left + self.crop]
        if not self.high_resolution:
            return Subject(name, from_uint8(pixels).unsqueeze(0), None, dataset)
        try:
            pixels = mod_crop(pixels, self.scale)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from None
        low = from_uint8(downscale(pixels, self.scale)).unsqueeze(0)
        return Subject(name, low, from_uint8(pixels).unsqueeze(0), dataset)

    def plan(self, precision: Precision = "float32") -> Plan:
        """Load models and images and say what is to be done, image by image.

        Raises:
            ConfigError, CheckpointError, ImageError: the study cannot be planned.
        """
        models = [load_defended(model, self.scale) for model in self.models]
        attacks = [
            (table.name, table.build(level / 255, precision)) for table in self.attacks for level in self.epsilons
        ]
        each = tuple(dict.fromkeys(self.seeds or (self.seed,)))
        cells: list[Cell] = []
        probes: list[Probe] = []
        for subject in self.subjects():
            pixels = image_sha256(subject.low[0])
            truth = image_sha256(subject.truth[0]) if subject.truth is not None else ""
            for model in models:
                assert model.card is not None
                weights = model.card.sha256
                for label, attack in attacks:
                    for seed in each:
                        key = cell_key(model.card.name, weights, label, repr(attack), pixels, truth, seed)
                        cells.append(Cell(key, model, attack, label, subject, seed))
                if self.steepness is not None:
                    probes += [Probe(model, subject, pixels, self.steepness, seed) for seed in each]
        return Plan(models, attacks, cells, probes, tuple(name for name in self.measures if name != "clever"))

    @property
    def steepness(self) -> CleverTable | None:
        """How the CLEVER index is taken; None where it is not."""
        return self.clever or (CleverTable() if "clever" in self.measures else None)

    def cells(self, precision: Precision = "float32") -> list[Cell]:
        """Return the cells of the plan."""
        return self.plan(precision).cells

    def run(
        self,
        out: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        workers: int = 1,
        batch: int = 0,
        ray: str = "",
        progress: Progress | None = None,
        on_found: Callable[[Found], None] | None = None,
    ) -> list[Record]:
        """Compute the cells and indices that ``out`` does not hold yet, and return the records of all cells.

        The figures are the same whatever the number of workers, their order and the interruptions before. A cell that
        fits no memory or kills its workers is left out, and said in ``failed.jsonl``.

        Args:
            out: folder of the study.
            device: a torch device.
            precision: of the attacks' search.
            workers: processes; one means this one.
            batch: at most so many cells are handed to a worker at a time; 0 for 1 on a CPU and 32 elsewhere.
            ray: ``local``, ``auto`` or an address, to run on a Ray cluster instead.
            progress: called with (units done, units in all, title of the one at work) after every attack step.
            on_found: called with what is found, once it is on disk.

        Raises:
            ConfigError, CheckpointError, ImageError: the study cannot be planned.
            OutputError: a record cannot be written; those before it are kept.
        """
        plan = self.plan(precision)
        machine = Machine(device=device, workers=workers, batch=batch, ray=ray)
        return self.carry_out(plan, out, machine, progress=progress, on_found=on_found)

    def carry_out(
        self,
        plan: Plan,
        out: Path,
        machine: Machine,
        *,
        progress: Progress | None = None,
        on_found: Callable[[Found], None] | None = None,
    ) -> list[Record]:
        """Do what ``run`` does with a plan that was made before."""
        facts = {
            "study": dataclasses.asdict(self),
            "provenance": dataclasses.asdict(provenance()),
            "conventions": conventions(
                plan.attacks, plan.models, self.high_resolution, self.steepness.words if self.steepness else ""
            ),
        }
        write_text(out / "study.json", json.dumps(facts, indent=1) + "\n")
        store = Store(out)
        store.write_order([cell.key for cell in plan.cells] + [probe.key for probe in plan.probes])
        done = finished(plan, out)
        units = plan.units(done, machine.cells)
        tally = Tally(plan, len(plan) - sum(len(plan.keys(unit)) for unit in units), progress, on_found)
        if machine.ray:
            from resolute.studies.cluster import run_on_ray

            run_on_ray(plan, units, out, machine, tally)
        elif machine.workers > 1:
            Workers(plan, out, machine, tally).run(units)
        else:
            run_here(plan, units, out, machine.device, tally)
        tally.tell("done")
        records = {record.key: record for record in store.read()}
        return [records[cell.key] for cell in plan.cells if cell.key in records]


def checked_attacks(path: Path, study: Study) -> Study:
    """Return the study if its attacks can be built; those that need other models or files are left for the plan.

    Raises:
        ConfigError: one cannot.
    """
    for number, table in enumerate(study.attacks):
        if not table.opens:
            for place, level in enumerate(study.epsilons):
                try:
                    table.build(level / 255)
                except ConfigError as error:
                    of_budget = error.key == ("epsilon",)
                    key = ("epsilons", str(place)) if of_budget else ("attacks", str(number), *error.key)
                    raise located(path, key, error.message) from None
    return study


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
