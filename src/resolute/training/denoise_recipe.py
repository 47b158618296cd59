"""The recipe of a denoiser."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.training.networks import DENOISERS, AnyDenoiser
from resolute.training.tables import STRICT, OptimizerTable, RunTable


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DenoiseDataTable:
    """How batches are cut from folders of clean images; a folder with ``mos.csv`` brings its own split and scores.

    Attributes:
        crop: side of the random crops, at the images' own resolution.
        zoom: crops of any side from ``crop`` to that of the image, shrunk to ``crop``, so that a denoiser knows
            photographs at their own size and shrunk; held out are whole ones, shrunk.
        batch: crops a step, over all devices together.
        validation: images held out of the folders without ``mos.csv``.
        validated: most images that a validation looks at, spread evenly over those held out.
        licence: terms of the images, written into the model card.
    """

    crop: int = pydantic.Field(default=128, ge=8)
    zoom: bool = False
    batch: int = pydantic.Field(default=8, ge=1)
    validation: int = pydantic.Field(default=10, ge=0)
    validated: int = pydantic.Field(default=32, ge=1)
    licence: str = "not stated"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DenoiseLossTable:
    """The weights of ``L_MSE + lam_t L_target + lam_r L_rank`` (see ``defences.dms_iqa``); 0 switches a term off.

    Attributes:
        mse, target, rank: size of each term, relative to the others (see ``LossBalance``).
        order: what the rank term ranks by: ``metric``, its score of the clean image, ``opinion``, human scores, or
            ``both``, half of either.
        momentum: of the averages that balance the terms.
        after: steps of the MSE alone, before the other terms come in.
    """

    mse: float = pydantic.Field(default=1.0, gt=0)
    target: float = pydantic.Field(default=0.0, ge=0)
    rank: float = pydantic.Field(default=0.0, ge=0)
    order: Literal["metric", "opinion", "both"] = "metric"
    momentum: float = pydantic.Field(default=0.99, ge=0, lt=1)
    after: int = pydantic.Field(default=0, ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RewardTable:
    """The metric as a training loss: ``weight * (1 - m(D(x)))``, the score m scaled to [0, 1], higher for better.

    The weight is fixed, and on top of the other terms: a balanced term would be as large as the MSE whatever the metric
    thinks, and runs that reward other forms of a metric could not be compared.

    Attributes:
        weight: of the term; 0 switches it off. It is worth the squared error, on the scale of [0, 1], that a gain of
            the metric's whole range may cost.
        sigma: standard deviation of the noise that the metric stands behind, on the scale of [0, 1]; 0 for none.
        draws: noisy copies of each image and step, whose mean score is rewarded.
        denoiser: what stands between noise and metric, frozen: named as ``metric`` is; empty for nothing.

    Example:
        >>> RewardTable(weight=0.01, sigma=0.12).defended
        True
    """

    weight: float = pydantic.Field(default=0.0, ge=0)
    sigma: float = pydantic.Field(default=0.0, ge=0, le=1)
    draws: int = pydantic.Field(default=4, ge=1)
    denoiser: str = ""

    @property
    def defended(self) -> bool:
        """Whether the metric stands behind noise."""
        return self.sigma > 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DenoiseRecipe(RunTable):
    """The training of a denoiser for one noise level.

    Attributes:
        metric: the quality metric in the loop: a weights file, the name of a recipe whose run lies beside this one, or
            that of a built-in metric; where only the MSE term is on, it judges the validation. Empty for none.
        sigma: standard deviation of the noise, on the scale of [0, 1].
        reward: the score itself as a term of the loss, which may be gamed (see ``RewardTable``).

    Example:
        >>> from resolute.training import read_recipe
        >>> read_recipe("denoiser-iqa-012").metric
        'quality-s'
    """

    task: Literal["denoise"] = "denoise"
    metric: str = ""
    sigma: float = pydantic.Field(gt=0, le=1)
    model: AnyDenoiser = dataclasses.field(default_factory=DENOISERS["unet"])
    data: DenoiseDataTable = dataclasses.field(default_factory=DenoiseDataTable)
    loss: DenoiseLossTable = dataclasses.field(default_factory=DenoiseLossTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    reward: RewardTable = dataclasses.field(default_factory=RewardTable)
