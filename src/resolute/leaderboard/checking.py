"""Checking an entry again: from its records, from the attacked images, and by running attacks once more."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from resolute.defences import load_defended
from resolute.errors import ConfigError, ImageError
from resolute.leaderboard.building import entry_of
from resolute.leaderboard.entry import Entry
from resolute.measure.fidelity import psnr_rgb
from resolute.of_file import described
from resolute.report.reading import read_folders
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, measure_all
from resolute.studies.grid import Grid
from resolute.studies.grid_cases import Replay
from resolute.studies.summary import level_of

# Of single figures: those of the bootstrap and of another processor's arithmetic agree far better.
TOLERANCE = 1e-3
# In dB, of figures computed again from the attacked images, perhaps on another processor.
AGAIN = 0.05
# In dB, of attacks that were run again: on another processor they climb by other ways.
REPEATED = 0.5


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


@dataclasses.dataclass(frozen=True)
class Again:
    """What was done once more, and which figures do not come out.

    Attributes:
        replayed: attacked images that were sent through the model.
        repeated: attacks that were run from the start.
        told: what differs, a sentence each.
    """

    replayed: int
    repeated: int
    told: list[str]


def done_again(
    entry: Entry, run: Path, replay: int, repeat: int, models: Sequence[str] = (), images: Sequence[str] = ()
) -> Again:
    """Send attacked images through the model again, and run attacks again; which ones nobody knows before.

    Where a run kept no attacked images, attacks are run again in their place.

    Args:
        entry: to be checked.
        run: folder of the study.
        replay: so many attacked images.
        repeat: so many attacks.
        models: where to look for the model, besides where the study found it; code in files named here is run.
        images: where to look for the images instead, as the study names them.

    Raises:
        ConfigError: the model or an image is missing.
    """
    source = read_folders([run]).sources[0]
    study = source.study
    if not isinstance(study, Grid):
        raise ConfigError(f"{run} does not say which images and models were attacked, so nothing can be done again")
    for model in models:
        load_defended(model, study.scale)
    study = dataclasses.replace(study, images=tuple(images) or study.images)
    scene = study.scene()
    again = Replay(dataclasses.replace(scene, models=[*models, *scene.models]), run)
    records = [record for record in source.records if isinstance(record, AttackRecord)]
    records = [r for r in records if (r.model, r.weights) == (entry.model.name, entry.model.sha256)]
    # From the system: whoever wrote the entry must not know which.
    chance = random.SystemRandom()
    kept = [record for record in records if any((run / file).is_file() for file in record.files)]
    sent = chance.sample(kept, min(replay, len(kept)))
    repeated = chance.sample(records, min(len(records), repeat if kept or not replay else max(repeat, 1)))
    try:
        told = [text for record in sent if (text := _sent(again, record))]
        told += [text for record in repeated for text in _repeated(study, again, record)]
    except ImageError as missing:
        raise ConfigError(
            f"{missing}; name them with --weights and --images, or check the records alone with --replay 0 --repeat 0"
        ) from None
    return Again(len(sent), len(repeated), told)


def _sent(again: Replay, record: AttackRecord) -> str:
    passed = again.passes(record)
    value = float(psnr_rgb(passed.clean[1][None], passed.attacked[1][None]))
    stored = math.inf if record.sr_psnr is None else record.sr_psnr
    if value == stored or abs(value - stored) <= AGAIN:
        return ""
    return f"{_where(record)}: the record says SR-PSNR {record.sr_psnr}, the attacked image gives {value:.4f}"


def _repeated(study: Grid, again: Replay, record: AttackRecord) -> Iterator[str]:
    model, subject = again.subject_of(record)
    built = [(table.name, table.build(record.epsilon, study.precision)) for table in study.attacks]
    attack = next((one for name, one in built if (name, described(one)) == (record.attack, record.configuration)), None)
    if attack is None:
        yield f"{_where(record)}: the study names no attack of this configuration"
        return
    cell = AttackCell.of(model, attack, record.attack, subject, record.seed)
    found = measure_all([cell], [Clean.of(model, subject)])[0].record
    for name, limit in (("sr_psnr", REPEATED), ("attacked_psnr_y", REPEATED), ("clean_psnr_y", AGAIN)):
        said, value = getattr(record, name), getattr(found, name)
        if said != value and (said is None or value is None or abs(said - value) > limit):
            yield f"{_where(record)}: the record says {name} {said}, the attack gives {value}"


def _where(record: AttackRecord) -> str:
    return f"{record.image}, {record.attack} {level_of(record):g}/255"


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
