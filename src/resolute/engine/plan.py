"""What a run is to do: the cells of a study, and the units of work that they are handed out in."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Sequence
from typing import final

from resolute.studies.study import Cell, RestorerCell, Study

# How often a unit may lose its worker before it is given up.
DEATHS = 4

_TILES = (0, 128, 64, 32, 16)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """What one worker does at a time: cells that may be answered together.

    It holds places in the plan and no model, so that it costs nothing to send.

    Attributes:
        cells: places in ``Plan.cells``.
        tile: side of the tiles that models work in; 0 for whole images.
        deaths: how many workers were lost over it.
    """

    cells: tuple[int, ...] = ()
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
        return [dataclasses.replace(self, tile=tile) for tile in later[:1]]

    def after_death(self) -> list[Unit]:
        """Return what to try after the worker was lost: the same once more, then smaller; nothing in the end."""
        unit = dataclasses.replace(self, deaths=self.deaths + 1)
        if unit.deaths >= DEATHS:
            return []
        # Anyone may kill a process once; one that is killed again has probably asked for too much memory.
        return unit.smaller() or [unit] if unit.deaths > 1 else [unit]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A study and its cells, with all models and images that they need; a cell that is there twice counts once."""

    study: Study
    cells: Sequence[Cell]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", list({cell.key: cell for cell in self.cells}.values()))

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.cells)

    def doubts(self) -> list[str]:
        """Return why models seem not to upscale, see ``Restorer``."""
        models = [model for cell in self.cells if isinstance(cell, RestorerCell) for model in cell.restorers()]
        return [doubt for doubt in dict.fromkeys(model.doubt for model in models) if doubt]

    def units(self, done: Collection[str], batch: int) -> list[Unit]:
        """Return what is not done yet, in order, at most ``batch`` cells a unit, or more where cells ask for it."""
        groups: dict[tuple[Hashable, ...], list[list[int]]] = {}
        units: list[list[int]] = []
        for place, cell in enumerate(self.cells):
            if cell.key in done:
                continue
            parts = groups.setdefault((cell.like, cell.shape), [])
            if not parts or (len(parts[-1]) >= max(batch, cell.together) and not cell.joint):
                parts.append([])
                units.append(parts[-1])
            parts[-1].append(place)
        return [Unit(cells=tuple(unit)) for unit in units]

    def of(self, unit: Unit) -> list[Cell]:
        """Return the cells of a unit."""
        return [self.cells[place] for place in unit.cells]

    def keys(self, unit: Unit) -> list[str]:
        """Return the keys of the cells of a unit."""
        return [cell.key for cell in self.of(unit)]

    def cost(self, unit: Unit) -> float:
        """Return what a unit costs, relative to others."""
        return sum(cell.cost for cell in self.of(unit))

    def without(self, unit: Unit, done: Collection[str]) -> Unit:
        """Return the unit without the cells that are done."""
        left = tuple(place for place in unit.cells if self.cells[place].key not in done)
        return dataclasses.replace(unit, cells=left)

    def title(self, unit: Unit) -> str:
        """Return what a person calls a unit."""
        first = self.cells[unit.cells[0]].title
        return f"{first} and {len(unit.cells) - 1} more" if len(unit.cells) > 1 else first
