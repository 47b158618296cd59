"""What a batch goes through before and after the network, where a recipe hardens the model while it trains."""

from __future__ import annotations

import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.adversarial import attacked_patches
from resolute.defences.jacobian import probe_shift
from resolute.models.base import Restorer
from resolute.training.restore_recipe import AdversarialTable, LossTable, Recipe

Low = Float[Tensor, "b 3 h w"]
High = Float[Tensor, "b 3 sh sw"]


@final
@dataclasses.dataclass(frozen=True)
class Prepared:
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


def prepare(recipe: Recipe, model: Restorer, low: Low, high: High, generator: torch.Generator) -> Prepared:
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
            low, high = with_attacked(table, model, low, high, generator)
        scale = 2.0 if table.combine == "sum" else 1.0
    if recipe.jitter is not None:
        noise = torch.randn(low.shape, generator=generator, device=low.device)
        low = low + recipe.jitter.level / 255 * noise
    shifted = None
    if recipe.jacobian is not None:
        shifted = low + probe_shift(low, recipe.jacobian.level / 255, generator)
    return Prepared(low, high, shifted, scale)


def with_attacked(
    table: AdversarialTable, model: nn.Module, low: Low, high: High, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 sh sw"]]:
    """Return the batch of adversarial training and its originals: first the clean patches, then the attacked ones."""
    clean = table.clean(len(low))
    # The paper attacks the very patches that are clean as well.
    chosen = slice(0, None) if clean == len(low) else slice(clean, None)
    attacked = attacked_patches(
        model, low[chosen], high[chosen], epsilon=table.level / 255, steps=table.steps,
        relative_step=table.relative_step, start=table.start, reference=table.reference, generator=generator,
    )  # fmt: skip
    return torch.cat([low[:clean], attacked]), torch.cat([high[:clean], high[chosen]])


def reconstruction_loss(table: LossTable, output: High, high: High) -> Float[Tensor, ""]:
    """Return the distance of ``output`` from ``high``, both in [0, 1], on the scale of the recipe's loss."""
    factor = 255.0 if table.scale == "255" else 2.0
    distance = F.l1_loss if table.kind == "l1" else F.mse_loss
    return distance(output.float() * factor, high * factor)
