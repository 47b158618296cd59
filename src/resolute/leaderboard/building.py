"""Entries from records: what a model reached under every attack of a finished study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydantic

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.figures import Interval
from resolute.leaderboard.empirical import Empirical, Figure
from resolute.leaderboard.entry import (
    AttackFacts,
    DataSet,
    Entry,
    FlagRaised,
    Knowledge,
    Made,
    ModelFacts,
    Suite,
    Threat,
    first_fault,
)
from resolute.provenance import Provenance
from resolute.report.page import CHECK
from resolute.report.reading import StudyFolder, read_folder, without_budget
from resolute.studies.attacked import AttackRecord
from resolute.studies.check import CheckRecord, by_model, evidence_of
from resolute.studies.datasets import dataset_title
from resolute.studies.flags import Flag
from resolute.studies.grid import Grid
from resolute.studies.record import PROTOCOL
from resolute.studies.record_flags import measured, record_flags
from resolute.studies.study import count
from resolute.studies.summary import level_of, standings

DIGITS = 4
_ORDER: tuple[Knowledge, ...] = ("adaptive", "white-box", "transfer", "black-box")


def entries_of(run: Path, *, submitter: str = "", link: str = "") -> tuple[list[Entry], list[str]]:
    """Return an entry for every model and data set of a study, and why any of them has none.

    Raises:
        ConfigError: the folder holds no records of attacks on super-resolution models.
    """
    source, records = _read(run)
    entries: list[Entry] = []
    notes: list[str] = []
    for model in dict.fromkeys(record.model for record in records):
        for dataset in dict.fromkeys(record.dataset for record in records if record.model == model):
            try:
                entries.append(_entry(run, source, records, model, dataset, submitter, link))
            except ConfigError as error:
                notes.append(str(error))
    return entries, notes


def entry_of(run: Path, model: str, dataset: str | None = None, *, submitter: str = "", link: str = "") -> Entry:
    """Return the entry of one model from the records of a study.

    Args:
        run: folder of the study.
        model: its name in the records.
        dataset: the images; may be left out where the study has one set only.
        submitter: who stands for it.
        link: to a paper or to the weights, with https.

    Raises:
        ConfigError: no such model or data set, or its records are unfinished or contradict each other.
    """
    return _entry(run, *_read(run), model, dataset, submitter, link)


def _entry(
    run: Path,
    source: StudyFolder,
    records: list[AttackRecord],
    model: str,
    dataset: str | None,
    submitter: str,
    link: str,
) -> Entry:
    own = [record for record in records if record.model == model]
    if not own:
        names = ", ".join(dict.fromkeys(record.model for record in records))
        raise ConfigError(f"no records of {model!r} in {run}; there are {names}")
    sets = list(dict.fromkeys(record.dataset for record in own))
    if dataset is None and len(sets) > 1:
        raise ConfigError(f"{model} was attacked on {', '.join(sets)}; name one of them with --data")
    chosen = sets[0] if dataset is None else dataset
    own = [record for record in own if record.dataset == chosen]
    if not own:
        raise ConfigError(f"no records of {model!r} on {dataset!r} in {run}; there are {', '.join(sets)}")
    # What all models of the study went through: an entry must not leave out the attacks that it fared badly under.
    _complete(model, own, [record for record in records if record.dataset == chosen])
    checks = by_model(Store(run / CHECK).read()).values()
    check = next((check for check in checks if check[0].weights == own[0].weights), ())
    scale = source.study.scale if isinstance(source.study, Grid) else 0
    return entry_of_records(own, scale, source.provenance, check, submitter=submitter, link=link)


def entry_of_records(
    own: Sequence[AttackRecord],
    scale: int,
    how: Provenance | None = None,
    check: Sequence[CheckRecord] = (),
    *,
    submitter: str = "",
    link: str = "",
) -> Entry:
    """Return the entry of one model from all of its records on one data set.

    Args:
        own: the records, one for every attack, budget and image.
        scale: of the model; 0 where it is not known.
        how: the records were made.
        check: what ``resolute check`` found on the same weights; nothing where it was not run.
        submitter: who stands for it.
        link: to a paper or to the weights, with https.

    Raises:
        ConfigError: the records contradict each other, or hold what no entry can.
    """
    try:
        attacks = _attacks(own)
        chosen = own[0].dataset
        empirical = [
            Empirical(
                attack=s.attack, level=s.level, images=s.images, unmoved=s.unmoved,
                sr_psnr=_figure(s.sr), attacked_psnr=_figure(s.truth), clean_psnr=_figure(s.clean),
            )
            for s in standings(own)
        ]  # fmt: skip
        return Entry(
            model=ModelFacts(name=own[0].model, sha256=own[0].weights, scale=scale),
            submitter=submitter,
            link=link,
            threat=Threat(
                norms=sorted({attack.norm for attack in attacks}, reverse=True),
                budgets=sorted({level_of(record) for record in own}),
                knowledge=[kind for kind in _ORDER if any(attack.knowledge == kind for attack in attacks)],
            ),
            suite=Suite.of(PROTOCOL, attacks),
            data=DataSet(
                name=dataset_title(chosen) if chosen else "",
                images=len({record.image for record in own}),
                sha256=_hash(sorted({record.pixels for record in own})),
            ),
            empirical=empirical,
            flags=_flags(own, check),
            checked=bool(check),
            records=_hash(sorted(json.dumps([record.key, *map(_rounded, _figures_of(record))]) for record in own)),
            cells=len(own),
            made=Made(command=how.command, date=how.date, versions=how.versions, hardware=how.hardware)
            if how
            else None,
        )
    except pydantic.ValidationError as error:
        raise ConfigError(f"the records of {own[0].model} make no entry: {first_fault(error)}") from None


def _figures_of(record: AttackRecord) -> tuple[float | None, ...]:
    return record.sr_psnr, record.attacked_psnr_y, record.clean_psnr_y, record.sr_psnr_unrounded


def _rounded(value: float | None) -> float | None:
    # As far as a file of many runs keeps them.
    return None if value is None else round(value, DIGITS)


def _flags(records: Sequence[AttackRecord], check: Sequence[CheckRecord]) -> list[FlagRaised]:
    """Return the flags of one model: of its check, and of its records."""
    told: list[tuple[Flag, str]] = []
    if check:
        basis = f"resolute check at {check[0].epsilon * 255:g}/255 on {count(len(check), 'image')}"
        told += [(flag, basis) for flag in evidence_of(check).flags() if flag.raised]
    told += [(flag, "these records") for flag in record_flags(records)]
    return [FlagRaised(name=flag.name, figure=measured(flag), words=flag.words, basis=basis) for flag, basis in told]


def _read(run: Path) -> tuple[StudyFolder, list[AttackRecord]]:
    found = read_folder(run)
    source = found.sources[0]
    if source.kind != Grid.kind:
        raise ConfigError(f"{run} is a study of the kind {source.kind}, and entries are of attacks")
    return source, [record for record in found.records if isinstance(record, AttackRecord)]


def _complete(model: str, own: Sequence[AttackRecord], asked: Sequence[AttackRecord]) -> None:
    """Refuse a choice of cells: every attack and budget of the study on every image, with one configuration each."""
    if len({record.weights for record in own}) > 1:
        raise ConfigError(f"the records of {model} are of several weights; run the study again into an empty folder")
    if len({record.seed for record in own}) > 1:
        raise ConfigError(
            f"the records of {model} are of several seeds; an entry is of one: give `resolute study` --seed"
        )
    settings = dict.fromkeys((record.attack, level_of(record)) for record in asked)
    images = {record.image for record in asked}
    have = {(record.attack, level_of(record), record.image) for record in own}
    for attack, level in settings:
        missing = sum((attack, level, image) not in have for image in images)
        if missing:
            raise ConfigError(
                f"{model}: {attack} {level:g}/255 lacks {missing} of {len(images)} images; run the study to its end"
            )


def _attacks(records: Sequence[AttackRecord]) -> list[AttackFacts]:
    found: dict[str, AttackFacts] = {}
    for record in records:
        configuration = without_budget(record.configuration)
        norm = "l2" if "norm='l2'" in configuration else "linf"
        facts = AttackFacts(
            label=record.attack, configuration=configuration, seed=record.seed, norm=norm, knowledge=_knowledge(record)
        )
        found.setdefault(record.attack, facts)
    return [found[label] for label in sorted(found)]


def _knowledge(record: AttackRecord) -> Knowledge:
    kind = record.configuration.partition("(")[0]
    if kind == "Transfer":
        return "transfer"
    if kind in ("Square", "RandomNoise"):
        return "black-box"
    # Attacks climb through the defences around a model, see ``resolute.defences.surrogate``.
    return "adaptive" if "+" in record.model else "white-box"


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\\n".join(lines).encode()).hexdigest()


def _figure(value: Interval | None) -> Figure | None:
    if value is None:
        return None
    mean, low, high = (round(end, DIGITS) for end in (value.mean, value.low, value.high))
    return Figure(mean=mean, low=low, high=high, n=value.n)
