"""The recipe of a quality metric."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.models.backbone import BackboneScorer
from resolute.models.efficientnet import EfficientNetScorer
from resolute.models.mobilenet import MobileNetScorer
from resolute.models.quality import QualityNet
from resolute.training.tables import STRICT, OptimizerTable, RunTable


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreModelTable:
    """Which metric to train.

    Attributes:
        architecture: ``quality``, a ``QualityNet``; or ``mobilenet`` or ``efficientnet``, a head on features that were
            trained to classify ImageNet.
        widths, blocks, hidden: see ``QualityNet``; the other two take ``hidden`` alone.
        backbone: file of the features that ``mobilenet`` and ``efficientnet`` rest on or start from.
        fixed: blocks of the backbone, and what is before them, that do not learn; with all of its blocks, the whole of
            it.
        ridge: penalty of the ridge regression that a linear head (``hidden`` 0) starts from, on the standardised
            features of two passes over the training images as batches have them; 0 for a random head.
        low, high: range of the score.
    """

    architecture: Literal["quality", "mobilenet", "efficientnet"] = "quality"
    widths: tuple[int, ...] = (32, 48, 64, 96)
    blocks: int = pydantic.Field(default=1, ge=0)
    hidden: int = pydantic.Field(default=64, ge=0)
    backbone: str = ""
    fixed: int = pydantic.Field(default=0, ge=0)
    ridge: float = pydantic.Field(default=0.0, ge=0)
    low: float = 0.0
    high: float = 100.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreDataTable:
    """What the metric learns from.

    Attributes:
        kind: ``rated``, a folder of images with mean opinion scores in ``mos.csv``; or ``synthetic``, folders of good
            images that are distorted on the way, scored by how far they are from the original.
        crop: side of the random crops, at the images' own resolution; 0 for whole images, which then are of one size.
        zoom: of ``rated`` images, crops of any side from ``crop`` to that of the image, shrunk to ``crop``, so that
            the metric knows photographs at their own size and shrunk.
        worsened: share of ``rated`` images that are distorted on the way, with their opinions lowered (see
            ``distortions.worsened``).
        batch: crops a step, over all devices together.
        validation: images held out of a ``synthetic`` training; ``mos.csv`` has a split of its own.
        sigma: standard deviation of Gaussian noise on every image, in training and validation, which is then clipped to
            [0, 1]: a metric for median smoothing that needs no denoiser in front of it. 0 for none.
        noised: share of the images of a training that have that noise, chosen anew in every batch; those of a
            validation all have it.
        licence: terms of the images, written into the model card.
    """

    kind: Literal["rated", "synthetic"] = "rated"
    crop: int = pydantic.Field(default=256, ge=0)
    zoom: bool = False
    worsened: float = pydantic.Field(default=0.0, ge=0, le=1)
    batch: int = pydantic.Field(default=8, ge=2)
    validation: int = pydantic.Field(default=10, ge=1)
    sigma: float = pydantic.Field(default=0.0, ge=0, le=1)
    noised: float = pydantic.Field(default=1.0, ge=0, le=1)
    licence: str = "not stated"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreLossTable:
    """The loss, on scores divided by their range: regression + ``correlation`` x (1 - PLCC) + ``rank`` x rank loss.

    The last two make the metric harder to move, without a proof: the gradient's norm (Liu et al., CVPR 2024) and
    adversarial training with one step (Chistyakova et al., 2024, with the opinions as they are).

    Attributes:
        regression: ``mse``, or ``huber`` with its corner at ``corner``.
        corner: see ``regression``.
        correlation: weight of one minus the linear correlation over the batch.
        rank: weight of the pairwise rank loss over the batch (see ``rank_loss``).
        gradient: weight of half the mean squared l1 norm of the score's gradient by the image.
        attacked: largest change of a sample of attacked images, in levels of 255, whose regression counts as much as
            that of the images as they are; each is driven up or down, by chance. 0 for none.
    """

    regression: Literal["mse", "huber"] = "mse"
    corner: float = pydantic.Field(default=0.1, gt=0)
    correlation: float = pydantic.Field(default=0.0, ge=0)
    rank: float = pydantic.Field(default=0.0, ge=0)
    gradient: float = pydantic.Field(default=0.0, ge=0)
    attacked: float = pydantic.Field(default=0.0, ge=0, le=255)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreRecipe(RunTable):
    """The training of a quality metric.

    Example:
        >>> from resolute.training import read_recipe
        >>> read_recipe("quality-s").start
        'quality-s-pretrain'
    """

    task: Literal["score"] = "score"
    model: ScoreModelTable = dataclasses.field(default_factory=ScoreModelTable)
    data: ScoreDataTable = dataclasses.field(default_factory=ScoreDataTable)
    loss: ScoreLossTable = dataclasses.field(default_factory=ScoreLossTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)

    def build(self) -> QualityNet | BackboneScorer:
        """Return the untrained metric; its weights are the caller's to seed.

        Raises:
            ConfigError: it rests on a backbone, and none is named.
            CheckpointError: the backbone cannot be read.
        """
        table = self.model
        if table.architecture == "quality":
            return QualityNet(table.widths, table.blocks, table.hidden, table.low, table.high)
        if not table.backbone:
            raise ConfigError(f"{self.name} rests on a trained backbone; name its file with --backbone")
        kind = MobileNetScorer if table.architecture == "mobilenet" else EfficientNetScorer
        metric = kind.from_backbone(Path(table.backbone), table.hidden, table.low, table.high)
        metric.backbone.fix(table.fixed)
        return metric
