"""Getting back what the records only name: the models, the clean inputs and the attacked ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.defences import load_defended
from resolute.defences.loading import undefended
from resolute.errors import CheckpointError, ConfigError, ImageError
from resolute.images import image_sha256, read_image
from resolute.models.address import parse_address
from resolute.models.base import Card, Restorer
from resolute.models.python_file import was_run
from resolute.report.source import Evidence
from resolute.studies.attacked import AttackRecord, Subject
from resolute.studies.grid import Grid


class MissingError(Exception):
    """Something that a picture needs is not to be had; the text says what, as a sentence for the page."""


@dataclasses.dataclass(frozen=True)
class Passage:
    """What a model makes of the clean and the attacked input of one record.

    Attributes:
        record: whose inputs these are.
        scale: of the model.
        attacked: ``(1, 3, h, w)`` attacked input, as saved.
        clean_features: ``(1, c, h, w)`` feature layer for the clean input.
        clean_output: ``(1, 3, s * h, s * w)`` output for the clean input, not clamped.
        features: the feature layer for the attacked input.
        output: the output for the attacked input.
    """

    record: AttackRecord
    scale: int
    attacked: Tensor
    clean_features: Tensor
    clean_output: Tensor
    features: Tensor
    output: Tensor


class Material:
    """Models, inputs and outputs behind the records, each model loaded and each clean input upscaled once.

    Args:
        evidence: what was read.
        models: names or files to look for models in, besides those that the studies name.
    """

    def __init__(self, evidence: Evidence, models: Sequence[str | Path] = ()) -> None:
        self._origins = evidence.origins
        self._models: dict[str, Restorer] = {}
        self._subjects: dict[str, Subject] = {}
        self._clean: dict[tuple[str, str, str], tuple[Tensor, Tensor]] = {}
        studied = [model for source in evidence.sources if source.study is not None for model in source.study.models]
        # A folder may come from anyone, and what it names is no reason to run code.
        studied = [model for model in studied if not _is_strange(model)]
        for model in dict.fromkeys(str(model) for model in (*models, *studied)):
            try:
                restorer = load_defended(model)
            except (CheckpointError, ConfigError):
                continue
            assert restorer.card is not None
            if restorer.card.sha256:
                self._models.setdefault(restorer.card.sha256, restorer)

    def model(self, record: AttackRecord) -> Restorer:
        """Return the model that a record is about, known by the sha256 of its weights.

        Raises:
            MissingError: no model has these weights.
        """
        known = self._models.get(record.weights)
        if known is None:
            raise MissingError(
                f"The weights of {record.model} (sha256 {record.weights[:12]}…) are not where the study found them, or "
                "have changed since, so its pictures are left out."
            )
        return known

    def card(self, record: AttackRecord) -> Card | None:
        """Return the facts about the model of a record, None where it is not to be had."""
        try:
            return self.model(record).card
        except MissingError:
            return None

    def subject(self, record: AttackRecord) -> Subject:
        """Return the clean input of a record, known by the sha256 of its pixels.

        Raises:
            MissingError: no image of the study has these pixels.
        """
        if record.pixels not in self._subjects:
            source, original = self._origins[record.key]
            for subject in _subjects(source.study, original.image) if source.study is not None else []:
                self._subjects.setdefault(image_sha256(subject.low[0]), subject)
        if record.pixels not in self._subjects:
            raise MissingError(
                f"The image {record.image} is not where the study found it, or is read in another way by this version, "
                "so its pictures are left out."
            )
        return self._subjects[record.pixels]

    def attacked(self, record: AttackRecord) -> Float[Tensor, "1 3 h w"]:
        """Return the attacked input of a record, as saved.

        Raises:
            MissingError: the file is missing, damaged, or of another size than the clean input.
        """
        source, _ = self._origins[record.key]
        missing = MissingError(
            f"An attacked image of {record.image} is missing from {source.store.folder.name}/attacked or damaged, so "
            "its pictures are left out."
        )
        try:
            image = read_image(source.store.path_of(f"attacked/{record.key}.png")).unsqueeze(0)
        except ImageError:
            raise missing from None
        if image.shape[-2:] != (record.height, record.width):
            raise missing
        return image

    def passage(self, record: AttackRecord) -> Passage:
        """Send the clean and the attacked input of a record through its model.

        Raises:
            MissingError: the model or one of the inputs is not to be had.
        """
        model, attacked = self.model(record), self.attacked(record)
        key = (record.model, record.weights, record.pixels)
        if key not in self._clean:
            self._clean[key] = _upscale(model, self.subject(record).low)
        return Passage(record, model.scale, attacked, *self._clean[key], *_upscale(model, attacked))


def _is_strange(model: str) -> bool:
    """Return whether a model is code that this process has not run already."""
    try:
        address = parse_address(undefended(model)[0])
    except ConfigError:
        return True
    return address.code and not was_run(Path(address.target))


def _upscale(model: Restorer, x: Float[Tensor, "1 3 h w"]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model.features(x), model(x)


def _subjects(study: Grid, name: str) -> list[Subject]:
    """Read the images of one name only: a study can be about hundreds."""
    # Of files that share a name, a study numbers the later ones; and a folder may hold records of a denser choice.
    stems = (name, name.rpartition("-")[0])
    try:
        photos = dataclasses.replace(study, every=1).photos()
        return [
            study.prepare(name, p.read(), p.dataset) for p in photos if (p.path.stem if p.path else p.name) in stems
        ]
    except ImageError:
        return []
