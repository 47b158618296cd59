"""Checking an entry again: from its records, and from the attacked images through the model itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from resolute.errors import ConfigError, ImageError
from resolute.leaderboard.building import entry_of
from resolute.leaderboard.entry import Entry
from resolute.measure.fidelity import psnr_rgb
from resolute.report.reading import read_folders
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.grid_cases import Replay

# Of single figures: those of the bootstrap and of another processor's arithmetic agree far better.
TOLERANCE = 1e-3
# In dB, of figures computed again from the attacked images, perhaps on another processor.
AGAIN = 0.05


def differences(entry: Entry, run: Path) -> list[str]:
    """Compute an entry again from the records of a run, and say what differs; nothing where it holds.

    What names no figure, the submitter, the link and how the records were made, is not compared.

    Raises:
        ConfigError: the run has no finished records of the entry's model.
    """
    sets = {record.dataset for record in read_folders([run]).records if record.model == entry.model.name} or {None}
    found = [entry_of(run, entry.model.name, name) for name in sets]
    again = next((other for other in found if other.data.sha256 == entry.data.sha256), found[0])
    said, recomputed = (one.model_dump(mode="json", exclude={"submitter", "link", "made"}) for one in (entry, again))
    return list(_differing(said, recomputed))


def replayed(entry: Entry, run: Path, limit: int, models: Sequence[str | Path] = ()) -> tuple[int, list[str]]:
    """Send attacked images through the model again; return how many, and which figures do not come out.

    Args:
        entry: to be checked.
        run: folder of the study, with its attacked images.
        limit: so many images, evenly picked.
        models: names or files to look for the model in, besides those that the study names.

    Raises:
        ConfigError: the model or an image is missing.
    """
    evidence = read_folders([run])
    source = evidence.sources[0]
    if not isinstance(source.study, Grid):
        raise ConfigError(f"{run} does not say which images and models were attacked, so nothing can be sent again")
    scene = source.study.scene()
    again = Replay(dataclasses.replace(scene, models=[*map(str, models), *scene.models]), run)
    records = [record for record in source.records if isinstance(record, AttackRecord)]
    records = [r for r in records if r.model == entry.model.name and r.weights == entry.model.sha256]
    chosen = records[:: max(1, -(-len(records) // limit))]
    told: list[str] = []
    for record in chosen:
        try:
            passed = again.passes(record)
        except ImageError as missing:
            raise ConfigError(f"{missing}; name the weights with --weights, or check the records alone") from None
        value = float(psnr_rgb(passed.clean[1][None], passed.attacked[1][None]))
        stored = math.inf if record.sr_psnr is None else record.sr_psnr
        if value != stored and not abs(value - stored) <= AGAIN:
            told.append(
                f"{record.image}, {record.attack} {record.epsilon * 255:g}/255: the record says SR-PSNR "
                f"{record.sr_psnr}, the attacked image gives {value:.4f}"
            )
    return len(chosen), told


def _differing(said: object, found: object, place: str = "") -> Iterator[str]:
    if isinstance(said, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*said, *found]):
            yield from _differing(said.get(key), found.get(key), f"{place}.{key}" if place else str(key))
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for index, (one, other) in enumerate(zip(said, found, strict=True)):
            yield from _differing(one, other, f"{place}[{index}]")
    elif isinstance(said, float) and isinstance(found, float):
        if abs(said - found) > TOLERANCE:
            yield f"{place}: the entry says {said:g}, the records give {found:g}"
    elif said != found:
        yield f"{place}: the entry says {_short(said)}, the records give {_short(found)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
