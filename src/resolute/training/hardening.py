"""What a batch goes through before and after the network, where a recipe hardens the model while it trains."""

from __future__ import annotations

import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.defences.adversarial import attacked_patches
from resolute.defences.jacobian import probe_shift
from resolute.models.base import Restorer
from resolute.training.restore_recipe import LossTable, Recipe

Low = Float[Tensor, "b 3 h w"]
High = Float[Tensor, "b 3 sh sw"]


@final
@dataclasses.dataclass(frozen=True)
class Hardened:
    """A batch as the network sees it.

    Attributes:
        low, high: patches and originals; with adversarial training the clean ones, then the attacked ones.
        shifted: the same patches a little elsewhere, for the Jacobian penalty; None without one.
        scale: of the loss, 2 where the losses of clean and attacked patches are summed.
    """

    low: Low
    high: High
    shifted: Low | None
    scale: float


def harden(recipe: Recipe, model: Restorer, low: Low, high: High, generator: torch.Generator) -> Hardened:
    """Return the batch that the recipe trains on instead of clean patches and originals.

    Args:
        recipe: its tables ``adversarial``, ``jitter`` and ``jacobian``.
        model: attacked by adversarial training.
        low: clean patches, in [0, 1].
        high: their originals.
        generator: of all that is random here, on the device of the patches.
    """
    scale = 1.0
    if recipe.adversarial is not None:
        table = recipe.adversarial
        with torch.autocast(low.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            attacked = attacked_patches(
                model, low, high, epsilon=table.level / 255, steps=table.steps, reference=table.reference,
                generator=generator,
            )  # fmt: skip
        low, high = torch.cat([low, attacked]), torch.cat([high, high])
        scale = 2.0 if table.combine == "sum" else 1.0
    if recipe.jitter is not None:
        noise = torch.randn(low.shape, generator=generator, device=low.device)
        low = low + recipe.jitter.level / 255 * noise
    shifted = None
    if recipe.jacobian is not None:
        shifted = low + probe_shift(low, recipe.jacobian.level / 255, generator)
    return Hardened(low, high, shifted, scale)


def reconstruction_loss(table: LossTable, output: High, high: High) -> Float[Tensor, ""]:
    """Return the distance of ``output`` from ``high``, both in [0, 1], on the scale of the recipe's loss."""
    factor = 255.0 if table.scale == "255" else 2.0
    distance = F.l1_loss if table.kind == "l1" else F.mse_loss
    return distance(output.float() * factor, high * factor)
