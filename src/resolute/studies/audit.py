"""The study that asks of every submitted image whether its score was gamed, and the calibration on honest ones."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, final

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.certificates.gap import (
    Calibration,
    Finding,
    Screening,
    audit,
    find_calibration,
    require_same_size,
)
from resolute.errors import BrokenImageError, FlaggedError, ImageError, ImageWarning, ResoluteError
from resolute.files import FileName
from resolute.images import image_sha256, read_image
from resolute.measure.fidelity import psnr_rgb
from resolute.models.base import Scorer
from resolute.models.scorers import load_scorer
from resolute.studies.audit_results import AMPLIFICATION, AuditRecord, results_of, suspicion, words_of
from resolute.studies.certification import METRIC
from resolute.studies.datasets import Photo, find_photos
from resolute.studies.originals import Originals
from resolute.studies.record import Record, record_key
from resolute.studies.results import Case, Measured, Quantity, Results, View
from resolute.studies.scored import finite
from resolute.studies.study import (
    Answer,
    Bench,
    Cell,
    Compared,
    Described,
    Pictured,
    Progress,
    Study,
    about,
    count,
    one_by_one,
)

Image = Float[Tensor, "3 h w"]
# Calibrations of this project's metrics, and those that were made here.
SHIPPED = Path(str(resources.files("resolute"))) / "calibrations"
MADE = Path("runs/calibrations")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AuditCell(Cell):
    """One submission, read again when it is answered, so that thousands fit into memory."""

    metric: Scorer
    screening: Screening
    calibration: Calibration | None
    name: str
    photo: Photo
    reference: str


@final
@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Audit(Study, Pictured, Compared, Described):
    """Submitted images, each with its score, its defended score, and the gap of both among honest photographs.

    Attributes:
        images: files and folders.
        references: originals: one file for all images, or files and folders that hold one of each image's name.
        metric: name or file of the quality metric.
        defence: of the second score; see ``Screening``.
        fit: shrink larger images until their longer side has so many pixels; 0 for never.
        samples: noisy copies, where the defence is noise.
        rate: of honest photographs that may be flagged.
        calibration: file with the gaps of honest photographs; empty for the one of this metric, made here or shipped.
        honest: the images are honest photographs, to calibrate with; nothing is flagged.
        seed: of the noise, if any; None to let the operating system draw one.

    Example:
        >>> Audit(images=("photo.jpg",)).rate
        0.01
    """

    kind: ClassVar[str] = "audit"
    heading: ClassVar[str] = "Which scores of {images} look gamed?"
    records: ClassVar[tuple[type[Record], ...]] = (AuditRecord,)
    alarmed: ClassVar[type[ResoluteError]] = FlaggedError

    name: FileName = "audit"
    images: tuple[str, ...] = pydantic.Field(min_length=1)
    references: tuple[str, ...] = ()
    metric: str = METRIC
    defence: str = Screening.defence
    fit: int = pydantic.Field(default=Screening.fit, ge=0)
    samples: int = pydantic.Field(default=Screening.samples, ge=1)
    rate: float = pydantic.Field(default=0.01, gt=0, lt=1)
    calibration: str = ""
    honest: bool = False
    seed: int | None = None

    @property
    def screening(self) -> Screening:
        """How both scores are taken."""
        return Screening(self.defence, self.fit, self.samples)

    def cells(self) -> Sequence[Cell]:
        metric, screening = load_scorer(self.metric), self.screening
        calibration = None if self.honest else self._calibration(metric, screening)
        originals = Originals.of(self.references)
        photos = find_photos(self.images)
        found = [self._cell(metric, screening, calibration, photo, originals) for photo in photos]
        broken = [cell.problem for cell in found if not math.prod(cell.shape)]
        if len(broken) == len(found):
            more = f"none of {len(found)} images can be read; the first: " if len(found) > 1 else ""
            raise BrokenImageError(f"{more}{broken[0]}")
        without = [Path(cell.name).name for cell in found if originals and not cell.reference and not cell.problem]
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            told = f"{without[0]}{more} without a reference of that name: judged by the gap alone"
            warnings.warn(told, ImageWarning, stacklevel=2)
        return found

    def _calibration(self, metric: Scorer, screening: Screening) -> Calibration:
        made = [path for folder in (MADE, SHIPPED) for path in sorted(folder.glob("*.json"))]
        calibration = find_calibration(metric, screening, [Path(self.calibration)] if self.calibration else made)
        calibration.threshold(self.rate)
        return calibration

    def _cell(
        self,
        metric: Scorer,
        screening: Screening,
        calibration: Calibration | None,
        photo: Photo,
        originals: Originals | None,
    ) -> AuditCell:
        name, original, problem = str(photo.path or photo.name), "", ""
        shape, pixels = (0, 0), list[str]()
        try:
            image = photo.read()
            shape = (image.shape[-2], image.shape[-1])
            pixels.append(image_sha256(image))
            screening.require_room(metric, image)
            if originals is not None and (original := originals.known(name)):
                reference = read_image(original)
                pixels.append(image_sha256(reference))
                require_same_size(image, reference)
        except ImageError as error:
            problem = str(error) if name in str(error) else f"{name}: {error}"
        held = None if calibration is None else (calibration.sha256, self.rate)
        return AuditCell(
            key=record_key(self.kind, screening.fingerprint(metric), held, name, original, pixels, self.seed, problem),
            title=name, like=("audit", screening.fingerprint(metric)), shape=shape,
            cost=1.0 + math.prod(shape) * (2 if screening.sigma is None else screening.samples),
            metric=metric, screening=screening, calibration=calibration, name=name, photo=photo, reference=original,
            problem=problem,
        )  # fmt: skip

    def answer(self, cells: Sequence[Cell], bench: Bench, progress: Progress) -> list[Answer]:
        def answer(cell: Cell, _told: Progress) -> Answer:
            assert isinstance(cell, AuditCell)
            return Answer(self._audited(cell, bench))

        return one_by_one(cells, progress, answer)

    def _audited(self, cell: AuditCell, bench: Bench) -> AuditRecord:
        began = time.perf_counter()
        metric, card = bench.place(cell.metric), cell.metric.card
        assert card is not None
        image = cell.photo.read()
        placed = image.to(bench.device)
        if cell.calibration is None:
            gap, facts = cell.screening(metric, placed, seed=self.seed), dict[str, Any]()
        else:
            reference = read_image(cell.reference).to(bench.device) if cell.reference else None
            found = audit(metric, placed, cell.calibration, reference, rate=self.rate, seed=self.seed)
            gap, facts = found.gap, _facts(found, cell.calibration)
        return AuditRecord(
            **about(cell, card, cell.name, image, gap.seed),
            **facts,
            scorer={name: value for name, value in dataclasses.asdict(card).items() if name != "training"},
            defence=cell.screening.defence,
            fit=cell.screening.fit,
            copies=cell.screening.samples if cell.screening.sigma is not None else 0,
            undefended=finite(gap.undefended),
            defended=finite(gap.defended),
            gap=finite(gap.value),
            reference=cell.reference,
            seconds=round(time.perf_counter() - began, 4),
        )

    def facts(self, cells: Sequence[Cell]) -> dict[str, str]:
        if self.honest:
            return {"gap": "the metric's score less the defended one, towards better quality"}
        calibration = next(cell.calibration for cell in cells if isinstance(cell, AuditCell))
        assert calibration is not None
        return {
            "p": "(1 + honest photographs of a source with a gap as large) / (1 + all of that source), the largest of "
            f"these: {calibration.photographs}",
            "flagged": f"p of at most {self.rate:g}: of honest photographs like those of any of these sources, at most "
            f"{100 * self.rate:g} % are. How many gamed images are found is not promised",
        }

    def outline(self, cells: Sequence[Cell]) -> str:
        return count(len(cells), "honest photograph" if self.honest else "submission")

    def results(self, records: Sequence[Record]) -> Results:
        return results_of([record for record in records if isinstance(record, AuditRecord)])

    def cases(self, records: Sequence[Record], folder: Path) -> Iterator[Case]:
        for record in sorted((r for r in records if isinstance(r, AuditRecord)), key=suspicion, reverse=True):
            image = _unchanged(record.image, record.pixels)
            if image is None:
                continue
            views = [View("submission", image)]
            original = _original(record, image)
            if original is not None:
                change = ((image - original).abs() * AMPLIFICATION).clamp(0, 1)
                views += [View("reference", original), View(f"change \u00d7{AMPLIFICATION}", change)]
            title = f"{Path(record.image).name}{': flagged' if record.suspect else ''}"
            yield Case(title, views, words_of(record), pair=(0, min(1, len(views) - 1)))

    def quantities(self, records: Sequence[Record]) -> Sequence[Quantity]:
        lower = any(isinstance(r, AuditRecord) and r.scorer.get("lower_better") for r in records)
        return [
            Quantity("gap", lower_better=True, unknown_worst=True),
            Quantity("score", lower_better=lower, digits=3, unknown_worst=True),
        ]

    def measured(self, record: Record) -> Measured | None:
        if not isinstance(record, AuditRecord):
            return None
        setting = {"metric": record.model, "defence": record.defence}
        return Measured(setting, {"gap": record.gap, "score": record.undefended})


def calibration_of(study: Audit, records: Mapping[str, Sequence[Record]]) -> Calibration:
    """Return the calibration that the records of honest photographs make.

    Photographs of equal pixels count once, where they come first, since none of them is news.

    Args:
        study: that they are the answers of.
        records: by source, one a photograph.
    """
    found = [(name, one) for name, own in records.items() for one in own if isinstance(one, AuditRecord)]
    own = {record.pixels: (name, record) for name, record in reversed(found)}
    if len(own) < len(found):
        left = count(len(found) - len(own), "photograph")
        warnings.warn(f"{left} left out: others have the same pixels", ImageWarning, stacklevel=2)
    metric, screening = load_scorer(study.metric), study.screening
    assert metric.card is not None
    gaps: dict[str, list[float]] = {name: [] for name in records}
    for name, record in reversed(own.values()):
        gaps[name].append(math.inf if record.gap is None else record.gap)
    return Calibration(
        metric=metric.card.name, fingerprint=screening.fingerprint(metric), screening=screening,
        smallest=min((screening.side(r.height, r.width) for _, r in found), default=0),
        gaps={name: tuple(each) for name, each in gaps.items()},
    )  # fmt: skip


def _facts(found: Finding, calibration: Calibration) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "photographs": calibration.photographs, "source": found.source, "at_least": found.at_least,
        "calibrated": len(calibration.gaps[found.source]), "calibration": calibration.sha256, "p": found.p,
        "rate": found.rate, "threshold": finite(found.threshold), "smallest": calibration.smallest,
        "unlike": found.unlike, "flagged": found.flagged,
    }  # fmt: skip
    if found.gain is not None:
        gain, reference = found.gain, found.gain.reference
        facts |= {
            "reference_undefended": finite(reference.undefended), "reference_defended": finite(reference.defended),
            "gain": finite(gain.undefended), "defended_gain": finite(gain.defended), "psnr": finite(gain.psnr),
            "ssim": finite(gain.ssim), "unseen": gain.unseen,
        }  # fmt: skip
    return facts


def _unchanged(name: str, pixels: str) -> Image | None:
    """Return the image of a file; None where it cannot be read, or holds other pixels than it did."""
    try:
        image = read_image(name)
    except ImageError:
        return None
    return image if pixels == image_sha256(image) else None


def _original(record: AuditRecord, image: Image) -> Image | None:
    """Return the reference of a record; None where it is missing, or is as near to the image as no record says.

    A record may come from anyone, and names any file of this machine.
    """
    try:
        found = read_image(record.reference) if record.reference else None
    except ImageError:
        return None
    if found is None or found.shape != image.shape:
        return None
    psnr = finite(float(psnr_rgb(image[None], found[None])))
    return found if math.isclose(psnr or 0.0, record.psnr or 0.0, abs_tol=1e-6) else None
