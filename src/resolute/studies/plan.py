"""What a study is to do: its cells and indices, and the units of work that they are handed out in."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import final

from resolute.attacks.ascent import Attack
from resolute.models.base import Restorer
from resolute.studies.cell import Cell
from resolute.studies.steepness import Probe

# How often a unit may lose its worker before it is given up.
DEATHS = 4

_TILES = (0, 128, 64, 32, 16)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """What one worker does at a time: some cells of one model, attack and image size, or one CLEVER index.

    It holds places in the plan and no model, so that it costs nothing to send.

    Attributes:
        cells: places in ``Plan.cells``.
        probe: place in ``Plan.probes``; None for cells.
        tile: side of the tiles that the model works in; 0 for whole images.
        deaths: how many workers were lost over it.
    """

    cells: tuple[int, ...] = ()
    probe: int | None = None
    tile: int = 0
    deaths: int = 0

    def smaller(self) -> list[Unit]:
        """Return the same work in units that need less memory: half the cells, or half the tile; none below that.

        Example:
            >>> [unit.cells for unit in Unit(cells=(0, 1, 2)).smaller()]
            [(0,), (1, 2)]
            >>> Unit(cells=(0,)).smaller()[0].tile, Unit(cells=(0,), tile=16).smaller()
            (128, [])
        """
        if len(self.cells) > 1:
            half = len(self.cells) // 2
            return [dataclasses.replace(self, cells=part) for part in (self.cells[:half], self.cells[half:])]
        later = _TILES[_TILES.index(self.tile) + 1 :]
        return [dataclasses.replace(self, tile=tile) for tile in later[:1]] if self.cells else []

    def after_death(self) -> list[Unit]:
        """Return what to try after the worker was lost: the same once more, then smaller; nothing in the end."""
        unit = dataclasses.replace(self, deaths=self.deaths + 1)
        if unit.deaths >= DEATHS:
            return []
        # Anyone may kill a process once; one that is killed again has probably asked for too much memory.
        return unit.smaller() or [unit] if unit.deaths > 1 else [unit]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What a study is to do.

    Attributes:
        models: as loaded.
        attacks: labels and attacks, one a budget.
        cells: units of attack, image by image.
        probes: units of CLEVER; none where the index is not asked for.
        measures: what a record is to hold.
    """

    models: list[Restorer]
    attacks: list[tuple[str, Attack]]
    cells: list[Cell]
    probes: list[Probe]
    measures: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of cells and indices."""
        return len(self.cells) + len(self.probes)

    def units(self, done: Collection[str], batch: int) -> list[Unit]:
        """Return what is not done yet, in order, at most ``batch`` cells a unit."""
        groups: dict[tuple[object, ...], list[list[int]]] = {}
        units: list[list[int]] = []
        for place, cell in enumerate(self.cells):
            if cell.key in done:
                continue
            alike = (id(cell.model), cell.label, cell.subject.low.shape)
            parts = groups.setdefault(alike, [])
            if not parts or len(parts[-1]) >= batch:
                parts.append([])
                units.append(parts[-1])
            parts[-1].append(place)
        probes = [place for place, probe in enumerate(self.probes) if probe.key not in done]
        return [Unit(cells=tuple(unit)) for unit in units] + [Unit(probe=place) for place in probes]

    def keys(self, unit: Unit) -> list[str]:
        """Return the keys of what a unit holds."""
        return [self.cells[place].key for place in unit.cells] if unit.probe is None else [self.probes[unit.probe].key]

    def without(self, unit: Unit, done: Collection[str]) -> Unit:
        """Return the unit without the cells that are done."""
        left = tuple(place for place in unit.cells if self.cells[place].key not in done)
        return dataclasses.replace(unit, cells=left)

    def title(self, unit: Unit) -> str:
        """Return what a person calls a unit."""
        if unit.probe is not None:
            return self.probes[unit.probe].title
        first = self.cells[unit.cells[0]].title
        return f"{first} and {len(unit.cells) - 1} more" if len(unit.cells) > 1 else first

    def titles(self, unit: Unit) -> Sequence[str]:
        """Return what a person calls each cell of a unit."""
        return [self.cells[place].title for place in unit.cells] or [self.title(unit)]
