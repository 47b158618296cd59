"""The cases that a report shows: inputs, outputs and features of the worst ones, without and with a defence."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from resolute.chart import BICUBIC
from resolute.errors import ImageError
from resolute.images import to_uint8
from resolute.report.assets import embed
from resolute.report.encode import Album, middle
from resolute.report.features import Features, paint
from resolute.report.material import Material, MissingError
from resolute.report.source import Evidence
from resolute.report.tables import find_pairs, headline_level
from resolute.report.text import figure, title
from resolute.studies.attacked import AttackRecord
from resolute.studies.summary import level_of

MAX_IMAGES = 4
MAX_SIDE = 384
# Of the data URIs and figures of all cases, where nobody says how large the page may be.
MAX_BYTES = 8_000_000
# More than this nobody looks through, and each takes a third of a second to paint.
MAX_CASES = 60
AMPLIFICATION = 8


@dataclasses.dataclass(frozen=True)
class View:
    """One picture of a case.

    Attributes:
        group: whose it is: a model's name, or empty for what all models share.
        label: what it shows.
        picture: its number in the album.
        low: it is a low-resolution image, to be enlarged without smoothing.
    """

    group: str
    label: str
    picture: int
    low: bool


@dataclasses.dataclass(frozen=True)
class Case:
    """One image under one attack at one budget, for one model or for one and its defended version.

    Attributes:
        facts: a line of figures for each model.
        worst: the case in a line, with the lowest SR-PSNR in it.
        width, height: of the outputs shown, in pixels.
        scale: ends of the colour scales of the features and of their change.
    """

    models: str
    image: str
    attack: str
    budget: str
    facts: list[str]
    worst: str
    views: list[View]
    features: list[Features]
    scale: list[str]
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Gallery:
    """All cases, the worst first, and what had to be left out."""

    cases: list[Case]
    album: Album
    notes: list[str]
    cropped: bool


def gallery(
    evidence: Evidence, material: Material, max_images: int = MAX_IMAGES, max_bytes: int = MAX_BYTES
) -> Gallery:
    """Choose the cases with the lowest SR-PSNR and make their pictures."""
    album, cases, notes = Album(), list[tuple[float, Case]](), dict[str, None]()
    plan = _plan(evidence.records, max_images)
    cropped = False
    spent = 0
    for number, records in enumerate(plan):
        known = len(album.uris)
        try:
            case = _case(records, material, album)
        except (MissingError, ImageError) as missing:
            notes[str(missing)] = None
            continue
        spent += len(embed(dataclasses.asdict(case)))
        if len(cases) == MAX_CASES or album.size + spent > max_bytes:
            album.forget(known)
            mildest = f"the {len(plan) - number} mildest of {len(plan)}" if cases else f"all {len(plan)}"
            note = f"To keep this page small, {mildest} cases are left out."
            notes[f"{note} A larger --megabytes shows more." if len(cases) < MAX_CASES else note] = None
            break
        cases.append((min(map(_kept, records)), case))
        cropped |= max(records[0].width, records[0].height) > _low_side(material.model(records[0]).scale)
    # The choice goes from one group of models to the next; a reader goes from the worst to the mildest.
    cases = [case for _, case in sorted(cases, key=lambda found: found[0])]
    return Gallery(cases, album, list(notes), cropped)


def _plan(records: Sequence[AttackRecord], max_images: int) -> list[list[AttackRecord]]:
    """Return the cases to show, the lowest SR-PSNR first, as the records of the models in them."""
    shown = [record for record in records if record.model != BICUBIC]
    if not shown:
        return []
    models = list(dict.fromkeys(record.model for record in shown))
    pairs = find_pairs(models)
    paired = {model for pair in pairs for model in pair}
    groups: list[tuple[str, ...]] = [*pairs, *((model,) for model in models if model not in paired)]
    levels = sorted({level_of(record) for record in shown})
    first = levels.index(headline_level(levels))
    images = list(dict.fromkeys(record.image for record in sorted(shown, key=_kept)))[:max_images]
    cells = {(record.model, record.attack, level_of(record), record.image): record for record in shown}
    plan = [
        [cells[model, attack, level, image] for model in group]
        for group in groups
        for attack in dict.fromkeys(record.attack for record in shown)
        for level in levels[first : first + 2]
        for image in images
        if all((model, attack, level, image) in cells for model in group)
    ]
    plan.sort(key=lambda case: min(map(_kept, case)))
    # The worst of every group of models comes before the second worst of any: room is short, and none may be missing.
    places: Counter[tuple[str, ...]] = Counter()
    ranked: list[tuple[int, list[AttackRecord]]] = []
    for case in plan:
        group = tuple(record.model for record in case)
        ranked.append((places[group], case))
        places[group] += 1
    return [case for _, case in sorted(ranked, key=lambda place: place[0])]


def _case(records: Sequence[AttackRecord], material: Material, album: Album) -> Case:
    first, subject = records[0], material.subject(records[0])
    passages = [material.passage(record) for record in records]
    scale = passages[0].scale
    if any(passage.scale != scale for passage in passages):
        raise MissingError(
            f"{' and '.join(r.model for r in records)} upscale by different factors: no pictures of both."
        )
    views = [View("", "clean input", album.add(_crop(subject.low, scale, 1), lossless=True), True)]
    if subject.truth is not None:
        views.append(View("", "ground truth", album.add(_crop(subject.truth, scale, scale)), False))
    for passage in passages:
        name = passage.record.model
        change = (passage.output.clamp(0, 1) - passage.clean_output.clamp(0, 1)).abs() * AMPLIFICATION
        views += [
            View(name, "attacked input", album.add(_crop(passage.attacked, scale, 1), lossless=True), True),
            View(name, "clean output", album.add(_crop(passage.clean_output, scale, scale)), False),
            View(name, "attacked output", album.add(_crop(passage.output, scale, scale)), False),
            View(name, f"change \u00d7{AMPLIFICATION}", album.add(_crop(change, scale, scale), quality=75), False),
        ]
    features, ends = paint(passages, _low_side(scale), album)
    low = _crop(subject.low, scale, 1)
    return Case(
        " | ".join(record.model for record in records),
        first.image,
        title(first.attack),
        f"{level_of(first):g}/255",
        [_facts(record) for record in records],
        f"{first.image}, {title(first.attack)} {level_of(first):g}/255, {' | '.join(r.model for r in records)}: "
        f"{figure(min(map(_kept, records)), 1)} dB",
        views,
        features,
        ends,
        low.shape[1] * scale,
        low.shape[0] * scale,
    )


def _facts(record: AttackRecord) -> str:
    text = (
        f"SR-PSNR {figure(record.sr_psnr, 1, infinite=True)} dB, LR-PSNR {figure(record.lr_psnr, 1, infinite=True)} dB"
    )
    if record.clean_psnr_y is not None and record.attacked_psnr_y is not None:
        text += (
            f"; against the ground truth {record.clean_psnr_y:.2f} dB clean, {record.attacked_psnr_y:.2f} dB attacked"
        )
    return f"{record.model}: {text}"


def _low_side(scale: int) -> int:
    return MAX_SIDE // scale


def _crop(x: Tensor, scale: int, factor: int) -> np.ndarray:
    """Cut the middle out of a large image, the same part of it at every size."""
    return middle(to_uint8(x[0]), _low_side(scale), factor)


def _kept(record: AttackRecord) -> float:
    return float("inf") if record.sr_psnr is None else record.sr_psnr
