"""From folders of runs to the leaderboard of published networks: records, page, and the summary for other models."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from resolute.chart import BICUBIC
from resolute.errors import ConfigError
from resolute.leaderboard.building import entry_of_records
from resolute.leaderboard.compact import Run
from resolute.leaderboard.network import Network
from resolute.leaderboard.ranking import Placed, is_bicubic, ranking
from resolute.provenance import Provenance
from resolute.report.reading import read_source
from resolute.studies.attacked import AttackRecord
from resolute.studies.peers import MIX, Peer, Peers, peer_of, suite_hash
from resolute.studies.record import grouped

# Of super-resolution in the standard suite.
SCALE = 4


@final
@dataclasses.dataclass(frozen=True)
class Gathered:
    """Runs that can stand together.

    Attributes:
        runs: by the ids of the networks; mixtures and bicubic interpolation by their names.
        notes: what was left out, and why.
    """

    runs: dict[str, Run]
    notes: list[str]


def gather(folders: Iterable[Path], networks: Mapping[str, Network], known: Mapping[str, Run]) -> Gathered:
    """Return the finished runs of folders together with those that are known already, which newer ones replace.

    Left out are runs that are not finished, networks without facts, and what went through another suite than most.

    Args:
        folders: each a run of ``resolute benchmark``; its name is the network's id where it holds one network.
        networks: facts by id.
        known: runs by id, as ``read_runs`` returns them.
    """
    runs, notes = dict(known), list[str]()
    for folder in folders:
        try:
            found, left = _finished(folder)
        except ConfigError as error:
            notes.append(f"{folder.name}: {error}")
            continue
        if left:
            notes.append(f"{folder.name} is not finished: {left} records are missing")
        models = grouped([one for one in found.records if not _beside(one.model)], lambda one: one.model)
        for model, own in grouped(found.records, lambda one: one.model).items() if not left else ():
            id = model if _beside(model) else folder.name if len(models) == 1 else model
            if not _beside(model) and id not in networks:
                notes.append(f"{id} has no facts in the file of networks")
                continue
            made = found.made
            if made is not None and id in networks:
                made = dataclasses.replace(made, command=f"resolute benchmark {networks[id].address}")
            runs[id] = Run(own, made)
    suites = {id: suite_hash(run.records) for id, run in runs.items()}
    most = Counter(suites.values()).most_common(1)
    kept = {id: run for id, run in sorted(runs.items()) if suites[id] == most[0][0]}
    notes += [f"{id} went through another suite than most" for id in runs if id not in kept]
    return Gathered(kept, notes)


def _beside(model: str) -> bool:
    """Tell whether a model is there to compare with, so that no facts are asked for."""
    return model == BICUBIC or MIX in model


def _finished(folder: Path) -> tuple[Run, int]:
    """Return what a folder holds, and how many records it lacks."""
    source = read_source(folder)
    records = [record for record in source.records if isinstance(record, AttackRecord)]
    lacking = set(source.store.order()) - {record.key for record in records}
    how = source.provenance
    made = None if how is None else Provenance("resolute benchmark", how.date, how.versions, how.hardware)
    return Run(records, made), len(lacking)


def rows_of(runs: Mapping[str, Run], networks: Mapping[str, Network]) -> list[Placed]:
    """Return the ranking of runs; see ``ranking``.

    Raises:
        ConfigError: there is no run.
    """
    if not runs:
        raise ConfigError("no finished run of the suite; name folders of resolute benchmark")
    entries = {
        id: entry_of_records(run.records, SCALE, run.made, link=networks[id].source if id in networks else "")
        for id, run in sorted(runs.items())
    }
    return ranking(entries, networks)


def peers_of(rows: Sequence[Placed], runs: Mapping[str, Run]) -> Peers:
    """Return the summary of a ranking that other models are compared with."""
    by_weights = {(run.records[0].model, run.records[0].weights): run.records for run in runs.values()}

    def peer(row: Placed, name: str, year: int) -> Peer | None:
        return peer_of(by_weights[row.entry.model.name, row.entry.model.sha256], name, year)

    ranked = [peer(row, row.name, row.network.year) for row in rows if row.rank is not None and row.network]
    bicubic = [peer(row, row.name, 0) for row in rows if is_bicubic(row.entry)]
    mixed = [row.entry.model.name for row in rows if MIX in row.entry.model.name]
    bases = {name.partition(MIX)[0] for name in mixed}
    mixtures = [
        peer(row, name if MIX in name else f"{name}{MIX}1", 0)
        for row in rows
        if MIX in (name := row.entry.model.name) or name in bases
    ]
    return Peers(
        suite=suite_hash(next(iter(runs.values())).records),
        networks=tuple(one for one in ranked if one is not None),
        bicubic=next((one for one in bicubic if one is not None), None),
        mixtures=tuple(one for one in mixtures if one is not None),
    )
