"""Training of a super-resolution model: plain, with the entropy regulariser, hardened otherwise, or as SRGAN."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from resolute.measure.fidelity import psnr_y
from resolute.models.archive import load_archive, save_archive
from resolute.models.base import Restorer
from resolute.models.carn import CARN
from resolute.models.readings import State
from resolute.models.registry import load
from resolute.randomness import stream_seed
from resolute.training.card import save_with_card
from resolute.training.gan import GanLoss
from resolute.training.hardener import Hardener, Outputs, reconstruction_loss
from resolute.training.patches import Patches
from resolute.training.rated import to_images
from resolute.training.restore_recipe import Recipe
from resolute.training.task import Figures, Task


@final
class RestoreTask(Task[Restorer]):
    """The distance of the output from the original, plus what the recipe adds to it.

    Raises:
        ConfigError: the data does not fit, the defence names a layer that does not exist, or a network that the recipe
            needs is not there.
    """

    def __init__(
        self, recipe: Recipe, data: Sequence[Path], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "weights"))
            model = recipe.model.build()
            self.gan = GanLoss(recipe.gan, side=recipe.data.patch * recipe.model.scale) if recipe.gan else None
        self.hardener = Hardener(recipe, model, recipe.seed, first=recipe.model.first_layer(), gan=self.gan)
        # Last: reading a large folder takes minutes, and an error in the recipe is told at once.
        self.patches = Patches(data, recipe.model.scale, recipe.data.patch, recipe.data.validation, progress)
        rates: list[tuple[nn.Module, float]] = []
        if recipe.defence is not None:
            rates.append((self.hardener.regularizers, recipe.defence.rate))
        if self.gan is not None:
            rates.append((self.gan.discriminator, 1.0))
        super().__init__(model, self.hardener, len(self.patches.training), rates=rates)

    def weights_in(self, path: Path) -> State:
        # As `load` reads it, so that one scale of an official checkpoint of several can be gone on with.
        model = load(path, self.recipe.model.scale)
        if isinstance(model, CARN) and isinstance(self.model, CARN):
            # Official weights are for images in [0, 1].
            model = model.at_peak(self.model.peak)
        density = path.with_suffix(".density.pt")
        if self.recipe.defence is not None and density.is_file():
            self.hardener.load_densities(load_archive(density))
        return model.state_dict()

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        return self.patches.batch(self.recipe.seed, step // self.recipe.replay, self.recipe.data.batch, rank, ranks)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        recipe, table = self.recipe, self.recipe.loss
        low = batch[0].to(self.device, memory_format=torch.channels_last)
        high = batch[1].to(self.device)
        with torch.autocast(low.device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            seen, twins = self.hardener.prepare(low, high, step, rank, step / recipe.optimizer.steps)
        outputs: Outputs = module(seen.low, seen.high, *twins)
        reconstruction = reconstruction_loss(table, outputs.output, seen.high)
        figures = {table.kind: reconstruction.item()}
        summed = recipe.adversarial is not None and recipe.adversarial.combine == "sum"
        loss = reconstruction * 2 if summed else reconstruction
        if recipe.gan is not None:
            loss = recipe.gan.pixel_weight * loss + outputs.adversary
            figures["gan"] = outputs.adversary.item()
        added, more = self.hardener.added(outputs, seen, twins, table)
        return loss + added, figures | more

    def validate(self) -> Figures:
        scores: list[float] = []
        for low, high in self.patches.validation:
            output = self.model(to_images([low]).to(self.device)).cpu()
            scores.append(psnr_y(output, to_images([high]), border=self.model.scale).item())
        return {"psnr_y": sum(scores) / len(scores)} if scores else {}

    def save(self, weights: Path, training: dict[str, object]) -> None:
        recipe, data = self.recipe, self.recipe.data
        tables = {
            "defence": recipe.defence, "adversarial training": recipe.adversarial, "input jitter": recipe.jitter,
            "consistency": recipe.consistency, "Jacobian penalty": recipe.jacobian, "GAN": recipe.gan,
        }  # fmt: skip
        used = {title: dataclasses.asdict(table) for title, table in tables.items() if table is not None}
        facts = {
            "scale": f"x{self.model.scale}",
            "input, output": "RGB float in [0, 1]",
            "loss": _loss_in_words(recipe),
            "defence": "none",
            **{title: ", ".join(f"{key} {value}" for key, value in table.items()) for title, table in used.items()},
        }
        steps = f"{data.batch} patches of {data.patch} x {data.patch}"
        results = {"validation PSNR (Y, border shaved)": ("psnr_y", "{:.2f} dB")}
        save_with_card(self.model, weights, training, facts, steps, results)
        if recipe.defence is not None:
            save_archive(self.hardener.densities(), weights.with_suffix(".density.pt"))


def _loss_in_words(recipe: Recipe) -> str:
    table, gan = recipe.loss, recipe.gan
    parts = [f"{table.kind.upper()} on {'[0, 255]' if table.scale == '255' else '[-1, 1]'}"]
    if gan is not None:
        parts = [f"{gan.content_weight:g} x content ({gan.content})", f"{gan.weight:g} x adversarial"] + (
            [f"{gan.pixel_weight:g} x {parts[0]}"] if gan.pixel_weight else []
        )
    if recipe.defence is not None:
        layers = ", ".join(layer or "the features" for layer in recipe.defence.layers)
        parts.append(f"{table.bit_weight * recipe.defence.weight:g} x bits of {layers}")
    if recipe.consistency is not None:
        parts.append(f"{recipe.consistency.weight:g} x consistency under attack")
    if recipe.jacobian is not None:
        parts.append(f"{recipe.jacobian.weight:g} x Jacobian penalty")
    return " + ".join(parts)
