"""What a study is: which cells there are, how one is answered, and what the answers come to."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypedDict, TypeVar

from torch import Tensor, nn

from resolute.errors import RefutedError, ResoluteError
from resolute.files import FileName
from resolute.images import image_sha256
from resolute.models.base import Card, Restorer, ScorerCard
from resolute.studies.record import Record
from resolute.studies.results import Case, Measured, Missing, Quantity, Results

Progress = Callable[[float], None]
Shared = TypeVar("Shared")
Module = TypeVar("Module", bound=nn.Module)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One unit of a study: a question with one answer. Each kind of study adds what it asks about.

    Attributes:
        key: hash of all that determines the answer; says whether it is done.
        title: what a person calls it.
        like: cells alike in this cost about as much a pixel.
        shape: cells of one ``like`` and ``shape`` may be answered together.
        cost: relative to other cells, such as pixels times passes.
        joint: the cells of one ``like`` and ``shape`` are answered together, however many.
        together: so many of one ``like`` and ``shape`` are quicker together than one by one, also on a CPU.
        needs: keys of cells whose records are needed for the answer.
        problem: why it cannot be answered, as far as the plan can tell, such as an image too small for the metric; it
            is left out, and said. Empty where nothing speaks against it.
    """

    key: str
    title: str
    like: Hashable
    shape: tuple[int, ...]
    cost: float = 1.0
    joint: bool = False
    together: int = 1
    needs: tuple[str, ...] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RestorerCell(Cell):
    """A cell about one super-resolution model; where it seems not to upscale, readers of the results are told."""

    model: Restorer

    def restorers(self) -> Sequence[Restorer]:
        """Return all models that it is about."""
        return [self.model]


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What came of one cell: its record, and pictures by the name of the folder that they are kept in.

    A picture is ``(3, h, w)`` in [0, 1], on the 8-bit grid.
    """

    record: Record
    pictures: Mapping[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])


class About(TypedDict):
    """The fields that records of every kind have, but for what the answer cost."""

    key: str
    model: str
    weights: str
    image: str
    pixels: str
    width: int
    height: int
    seed: int


def about(cell: Cell, card: Card | ScorerCard, name: str, image: Tensor, seed: int = 0) -> About:
    """Return what a record says of its cell, for ``MyRecord(**about(...), ...)``.

    The card is that of the model that is judged, the image what this model sees, ``(3, h, w)`` in [0, 1].
    """
    return About(
        key=cell.key,
        model=card.name,
        weights=card.sha256,
        image=name,
        pixels=image_sha256(image),
        width=image.shape[-1],
        height=image.shape[-2],
        seed=seed,
    )


def count(number: int, thing: str, things: str = "") -> str:
    """Return how many of a thing there are, in words.

    Example:
        >>> count(1, "cell"), count(2, "index", "indices")
        ('1 cell', '2 indices')
    """
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def one_by_one(cells: Sequence[Cell], progress: Progress, answer: Callable[[Cell, Progress], Answer]) -> list[Answer]:
    """Answer cells one after the other; each is given a callable for the share of its own that is done."""
    found: list[Answer] = []
    for number, cell in enumerate(cells):
        found.append(answer(cell, lambda share, number=number: progress((number + share) / len(cells))))
        progress((number + 1) / len(cells))
    return found


class Bench(abc.ABC):
    """Where cells are answered.

    Attributes:
        device: a torch device.
        tile: side of the tiles that models are to work in; 0 for whole images.
    """

    device: str
    tile: int

    @abc.abstractmethod
    def place(self, model: Module) -> Module:
        """Return the model on the device."""

    @abc.abstractmethod
    def room(self) -> float:
        """Return how many bytes of the device's memory may be taken beyond those in use."""

    @abc.abstractmethod
    def shared(self, key: Hashable, make: Callable[[], Shared]) -> Shared:
        """Return what several cells have in common: made once, and kept while it may be asked for again."""

    @abc.abstractmethod
    def record(self, key: str) -> Record:
        """Return a record that a cell needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(abc.ABC):
    """A question with many cells. A kind of study is one file, and its class a frozen dataclass of its settings.

    Attributes:
        kind: as TOML files name it.
        records: the kinds of its answers.
        cumulative: results of all that was ever run into a folder count, and not only those of the last plan.
        heading: of its page, where ``{models}``, ``{images}`` and ``{name}`` stand for what it is about.
        name: in reports, and of the folder of its results.
    """

    kind: ClassVar[str]
    records: ClassVar[tuple[type[Record], ...]]
    cumulative: ClassVar[bool] = False
    heading: ClassVar[str] = "{name}"
    # What a command ends with where the results raise an alarm.
    alarmed: ClassVar[type[ResoluteError]] = RefutedError
    name: FileName

    @abc.abstractmethod
    def cells(self) -> Iterable[Cell]:
        """Load models and images, and return all cells, in the order of reports.

        Raises:
            ConfigError, CheckpointError, ImageError: the study cannot be planned.
        """

    @abc.abstractmethod
    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        """Answer cells of one ``like`` and ``shape``.

        Args:
            cells: in the order of the answers.
            bench: what there is to work with.
            progress: called with the share that is done, in [0, 1].

        Raises:
            RuntimeError, MemoryError: memory does not suffice; fewer cells or smaller tiles are tried next.
            FloatingPointError: the figures are not finite; the cell is left out, and said.
            CellError, ImageError: this cell cannot be answered; it is left out, and said.
            Exception: of a network that does not take an image as small, and takes larger ones; as ``CellError``.
        """

    @abc.abstractmethod
    def results(self, records: Sequence[Record]) -> Results:
        """Return what the records come to.

        Args:
            records: of this study, in the order of its cells; those of cells that failed are missing.
        """


class Pictured(abc.ABC):
    """A study whose records can be seen."""

    @abc.abstractmethod
    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case | Missing]:
        """Yield what the records look like, the worst first, and why any cannot be shown.

        Args:
            records: as for ``results``.
            folder: of the study, with the files of the records.
        """


class Compared(abc.ABC):
    """A study of which two runs can be compared.

    Attributes:
        worst_of: settings among which an attacker chooses, so that for a bound the worst on each image counts.
    """

    worst_of: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        """Return what two runs of this study are compared by."""

    @abc.abstractmethod
    def measured(self, record: Record) -> Measured | None:
        """Return what a record says of its image, for comparisons; None where it has no place in them."""


class InTiles(abc.ABC):
    """A study whose models can work in tiles where memory does not suffice for a whole image."""

    @abc.abstractmethod
    def without_tiles(self, cell: Cell) -> str:
        """Say why the models of a cell cannot work in tiles; an empty string where they can."""


class Described(abc.ABC):
    """A study that has more to say of itself than its settings do."""

    @abc.abstractmethod
    def outline(self, cells: Sequence[Cell]) -> str:
        """Return what the cells are, in a line for a person: how many of what."""

    @abc.abstractmethod
    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Return what a reader of the figures must know and the settings do not say, in words."""
