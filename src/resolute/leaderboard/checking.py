"""Checking figures again: from the records, from the attacked images, and by running attacks once more."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from resolute.chart import BICUBIC
from resolute.defences import load_defended
from resolute.defences.loading import undefended
from resolute.engine.bench import PlanBench
from resolute.engine.plan import Plan, Unit
from resolute.errors import ConfigError, ImageError
from resolute.leaderboard.building import entry_of
from resolute.leaderboard.entry import Entry
from resolute.measure.fidelity import psnr_rgb
from resolute.models.base import Restorer
from resolute.models.registry import built_in_models
from resolute.of_file import described
from resolute.report.reading import read_folder
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, measure_all
from resolute.studies.grid import Grid
from resolute.studies.grid_cases import Replay
from resolute.studies.record import grouped
from resolute.studies.study import count
from resolute.studies.summary import HEADLINE, level_of

# Of single figures: those of the bootstrap and of another processor's arithmetic agree far better.
TOLERANCE = 1e-3
# In dB, of figures computed again from the attacked images, perhaps on another processor.
AGAIN = 0.05
# In dB, of attacks that were run again: on another processor they climb by other ways. Between an H100 and a CPU the
# figures of gradient attacks on CARN-M spread by 0.33 dB an image and those on EDSR by 0.12; this is above four times
# the larger. The mean of n is allowed so much by the square root of n.
REPEATED = 1.5
# Figures that no search leads to, and those that one leads to.
_COMPUTED = ("clean_psnr_y", "signs_psnr_y", "signs_sr_psnr")
_ATTACKED = ("sr_psnr", "attacked_psnr_y")
_REMEDY = "name them with --weights and --images, or check the records alone with --replay 0 --repeat 0"


def differences(entry: Entry, run: Path) -> list[str]:
    """Compute an entry again from the records of a run, and say what differs; nothing where it holds.

    What names no figure, the submitter, the link and how the records were made, is not compared.

    Raises:
        ConfigError: the run has no finished records of the entry's model.
    """
    sets = {record.dataset for record in read_folder(run).records if record.model == entry.model.name} or {None}
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
        told: what does not hold, a sentence each.
        weaker: attacks that found less this time, a sentence each; the records may hold all the same, for an attack
            that is found once exists.
        apart: largest difference of an attacked figure between a record and the attack that was run again, in dB.
    """

    replayed: int
    repeated: int
    told: list[str]
    weaker: list[str] = dataclasses.field(default_factory=list[str])
    apart: float = 0.0


def done_again(
    entry: Entry,
    run: Path,
    replay: int,
    repeat: int,
    models: Sequence[str] = (),
    images: Sequence[str] = (),
    device: str = "cpu",
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
        device: to run the attacks on.

    Raises:
        ConfigError: the model or an image is missing.
    """
    source = read_folder(run).sources[0]
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
        found = [_Repeated(record, _run_again(study, again, record, device)) for record in repeated]
    except ImageError as missing:
        raise ConfigError(f"{missing}; {_REMEDY}") from None
    return _judged(len(sent), told, found)


def published_again(
    records: Sequence[AttackRecord],
    study: Grid,
    repeat: int,
    models: Sequence[str] = (),
    images: Sequence[str] = (),
    device: str = "cpu",
) -> Again:
    """Run attacks on a published model again, if model, images and attacks are those of its records.

    Args:
        records: all of one model.
        study: that they are of.
        repeat: so many attacks; which ones nobody knows before.
        models: where to look for the model; nothing for a built-in one. Code in files named here is run.
        images: where to look for the images instead: a folder, or as the study names them.
        device: to run them on.

    Raises:
        ConfigError: the model is missing or another one, an image is missing or another one, or the records are not
            those of all attacks of the study on all of its images.
        CheckpointError: a file in ``models`` cannot be loaded.
    """
    dataset = records[0].dataset
    folders = tuple(one if "=" in one or not dataset else f"{dataset}={one}" for one in images)
    study = dataclasses.replace(study, images=folders or study.images)
    try:
        cells = study.cells_of([_same_model(records[0], models, study.scale)])
    except ImageError as missing:
        raise ConfigError(f"{missing}; {_REMEDY}") from None
    of = _same_cells(study.name, records, [cell for cell in cells if isinstance(cell, AttackCell)])
    drawn = _drawn(records, repeat)
    plan = Plan(study, [of[record.key] for record in drawn])
    found = PlanBench(plan, device).do(Unit(cells=tuple(range(len(plan)))), {}, lambda _share: None)
    if found.failures:
        raise ConfigError(f"{found.failures[0].title}: {found.failures[0].reason}")
    by_key = {record.key: record for record in found.records if isinstance(record, AttackRecord)}
    return _judged(0, [], [_Repeated(record, by_key[record.key]) for record in drawn])


def gaps(records: Sequence[AttackRecord], study: Grid) -> list[str]:
    """Return what one model's records lack of a study, or hold beyond it, in words; nothing where all is there.

    Args:
        records: all of one model.
        study: whose images are named in it.
    """
    asked = Counter(
        (table.name, float(level), image)
        for table in study.attacks
        for level in table.epsilons or study.epsilons
        for image in study.names
    )
    have = Counter((one.attack, round(one.epsilon * 255, 6), one.image) for one in records)
    told = [
        f"{count(sum(found.values()), 'record')} {what}, first {' '.join(map(str, min(found)))}"
        for what, found in (("missing", asked - have), ("too many", have - asked))
        if found
    ]
    return [*told, wild] if (wild := _beyond(records)) else told


def _beyond(records: Sequence[AttackRecord]) -> str:
    """Say which record changes pixels by more than its budget; nothing where none does."""
    wild = next((one for one in records if one.linf > level_of(one) + TOLERANCE), None)
    return f"{_where(wild)} changes pixels by {wild.linf:g}/255" if wild else ""


def _drawn(records: Sequence[AttackRecord], number: int) -> list[AttackRecord]:
    """Draw records by chance, every second one of those that decide a rank: the worst on an image at 4/255."""
    chance = random.SystemRandom()
    at = [one for one in records if level_of(one) == HEADLINE]
    worst = [min(own, key=lambda one: _decibels(one.sr_psnr)) for own in grouped(at, lambda one: one.image).values()]
    first = chance.sample(worst, min(-(-number // 2), len(worst)))
    keys = {one.key for one in first}
    rest = [one for one in records if one.key not in keys]
    return first + chance.sample(rest, min(number - len(first), len(rest)))


def _same_model(record: AttackRecord, models: Sequence[str], scale: int) -> Restorer:
    """Return the model of a record, by the name that the record gives it; a file may have been renamed."""
    # What a file of records names is no reason to run code or to fetch anything.
    built_in = undefended(record.model)[0] in {BICUBIC, *built_in_models()}
    if not models and not built_in:
        raise ConfigError(f"{record.model} does not come with Resolute; {_REMEDY}")
    others: list[str] = []
    for address in models or (record.model,):
        model = load_defended(address, scale)
        assert model.card is not None
        # Interpolation has no weights, and its name says all.
        if model.card.sha256 == record.weights and (record.weights or model.card.name == record.model):
            model.card = dataclasses.replace(model.card, name=record.model)
            return model
        others.append(f"{address} has {model.card.sha256[:16] or 'none'}")
    raise ConfigError(f"the records are of the weights {record.weights[:16] or 'none'}; {', '.join(others)}")


def _same_cells(study: str, records: Sequence[AttackRecord], cells: Sequence[AttackCell]) -> dict[str, AttackCell]:
    """Return the cells of a study by their keys, if they are those of the records."""
    pixels = {cell.subject.name: cell.subject.pixels for cell in cells}
    other = sorted({one.image for one in records if one.image in pixels and one.pixels != pixels[one.image]})
    if other:
        raise ConfigError(
            f"{count(len(other), 'image has', 'images have')} other pixels than those of the records, first {other[0]}"
        )
    of = {cell.key: cell for cell in cells}
    have = {one.key: one for one in records}
    # The key stands for what was attacked and how, ground truth included; what a record says beside it counts too.
    wrong = [one for one in records if one.key not in of or _said(one) != _asked(of[one.key])]
    if wrong:
        found = count(len(wrong), "record is none", "records are none")
        raise ConfigError(f"{found} of the study {study} on these images, first {_where(wrong[0])}")
    if wild := _beyond(records):
        raise ConfigError(wild)
    if len(have) < len(records):
        raise ConfigError(f"{count(len(records) - len(have), 'record is', 'records are')} there twice")
    if missing := of.keys() - have.keys():
        raise ConfigError(f"{count(len(missing), 'record is', 'records are')} missing, first {of[min(missing)].title}")
    return of


def _said(record: AttackRecord) -> tuple[object, ...]:
    return record.model, record.weights, record.image, record.attack, record.configuration, record.epsilon, record.seed


def _asked(cell: AttackCell) -> tuple[object, ...]:
    card, attack = cell.model.card, cell.attack
    assert card is not None
    return card.name, card.sha256, cell.subject.name, cell.label, described(attack), attack.epsilon, cell.seed


@dataclasses.dataclass(frozen=True)
class _Repeated:
    """A record, and what its attack found this time; None where the study names no such attack."""

    said: AttackRecord
    found: AttackRecord | None

    def more(self, name: str) -> float:
        """Return by how many dB a figure is higher this time."""
        said, found = (_decibels(getattr(one, name)) for one in (self.said, self.found))
        return 0.0 if said == found else found - said


def _judged(replayed: int, told: list[str], repeated: Sequence[_Repeated]) -> Again:
    told, weaker, apart = [*told], list[str](), 0.0
    for one in repeated:
        if one.found is None:
            told.append(f"{_where(one.said)}: the study names no attack of this configuration")
            continue
        told += _texts(one, [name for name in _COMPUTED if not abs(one.more(name)) <= AGAIN])
        # One that is stronger this time exists, so the record is too good. One that is weaker says nothing about what
        # was found before.
        told += _texts(one, [name for name in _ATTACKED if one.more(name) < -REPEATED])
        weaker += _texts(one, [name for name in _ATTACKED if one.more(name) > REPEATED])
        apart = max(apart, *(abs(one.more(name)) for name in _ATTACKED))
    told += _means([one for one in repeated if one.found is not None])
    return Again(replayed, len(repeated), told, weaker, apart)


def _means(repeated: Sequence[_Repeated]) -> Iterator[str]:
    """Say which figures many records have a little too good, none of them by too much."""
    for name in _ATTACKED:
        more = [value for one in repeated if math.isfinite(value := one.more(name))]
        if len(more) > 1 and (mean := statistics.fmean(more)) < -REPEATED / math.sqrt(len(more)):
            yield f"{len(more)} attacks: as a mean, the records say {-mean:.2f} dB more of {name} than the attacks give"


def _texts(one: _Repeated, names: Iterable[str]) -> list[str]:
    return [
        f"{_where(one.said)}: the record says {name} {getattr(one.said, name)}, the attack gives "
        f"{getattr(one.found, name)}"
        for name in names
    ]


def _decibels(value: float | None) -> float:
    return math.inf if value is None else value


def _sent(again: Replay, record: AttackRecord) -> str:
    passed = again.passes(record)
    value = float(psnr_rgb(passed.clean[1][None], passed.attacked[1][None]))
    stored = math.inf if record.sr_psnr is None else record.sr_psnr
    if value == stored or abs(value - stored) <= AGAIN:
        return ""
    return f"{_where(record)}: the record says SR-PSNR {record.sr_psnr}, the attacked image gives {value:.4f}"


def _run_again(study: Grid, again: Replay, record: AttackRecord, device: str) -> AttackRecord | None:
    model, subject = again.subject_of(record)
    model.to(device)
    built = [(table.name, table.build(record.epsilon, study.precision)) for table in study.attacks]
    attack = next((one for name, one in built if (name, described(one)) == (record.attack, record.configuration)), None)
    if attack is None:
        return None
    cell = AttackCell.of(model, attack, record.attack, subject, record.seed)
    return measure_all([cell], [Clean.of(model, subject)])[0].record


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
