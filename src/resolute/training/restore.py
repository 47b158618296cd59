"""Training of a super-resolution model: plain, with the entropy regulariser, hardened otherwise, or as SRGAN."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.defences.entropy import EntropyRegularizer
from resolute.defences.jacobian import jacobian_penalty
from resolute.errors import ConfigError
from resolute.measure.fidelity import psnr_y
from resolute.models.archive import load_archive, save_archive
from resolute.models.base import Restorer
from resolute.models.carn import CARN
from resolute.models.layers import find_layer
from resolute.models.readings import State
from resolute.models.registry import load
from resolute.randomness import generator_for, stream_seed
from resolute.training.card import save_with_card
from resolute.training.gan import GanLoss
from resolute.training.patches import Patches
from resolute.training.prepared import prepare, reconstruction_loss
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
        layer = _layer_of(recipe, model)
        self.defence = _build_defence(recipe, model, layer)
        # Last: reading a large folder takes minutes, and an error in the recipe is told at once.
        self.patches = Patches(data, recipe.model.scale, recipe.data.patch, recipe.data.validation, progress)
        rates: list[tuple[nn.Module, float]] = []
        if self.defence is not None and recipe.defence is not None:
            rates.append((self.defence, recipe.defence.rate))
        if self.gan is not None:
            rates.append((self.gan.discriminator, 1.0))
        parts = _RestoreParts(model, self.defence, layer, self.gan)
        super().__init__(model, parts, len(self.patches.training), rates=rates)

    def weights_in(self, path: Path) -> State:
        # As `load` reads it, so that one scale of an official checkpoint of several can be gone on with.
        model = load(path, self.recipe.model.scale)
        if isinstance(model, CARN) and isinstance(self.model, CARN):
            # Official weights are for images in [0, 1].
            model = model.at_peak(self.model.peak)
        density = path.with_suffix(".density.pt")
        if self.defence is not None and density.is_file():
            self.defence.density.load_state_dict(load_archive(density))
        return model.state_dict()

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        return self.patches.batch(self.recipe.seed, step, self.recipe.data.batch, rank, ranks)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        low = batch[0].to(self.device, memory_format=torch.channels_last)
        high = batch[1].to(self.device)
        seed = self.recipe.seed
        if self.defence is not None:
            self.defence.generator = generator_for(seed, "noise", step, rank, device=self.device)
        generator = generator_for(seed, "hardening", step, rank, device=self.device)
        batch_seen = prepare(self.recipe, self.model, low, high, generator)
        output, bits, penalty, adversary = module(batch_seen.low, batch_seen.high, batch_seen.shifted)
        table = self.recipe.loss
        reconstruction = reconstruction_loss(table, output, batch_seen.high)
        figures = {table.kind: reconstruction.item(), "bits": bits.item()}
        loss = reconstruction * batch_seen.scale
        if self.recipe.gan is not None:
            loss = self.recipe.gan.pixel_weight * loss + adversary
            figures["gan"] = adversary.item()
        if self.recipe.defence is not None:
            loss = loss + table.bit_weight * self.recipe.defence.weight * bits
        if self.recipe.jacobian is not None:
            loss = loss + self.recipe.jacobian.weight * penalty
            figures["jacobian"] = penalty.item()
        return loss, figures

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
            "Jacobian penalty": recipe.jacobian, "GAN": recipe.gan,
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
        if self.defence is not None:
            save_archive(self.defence.density.state_dict(), weights.with_suffix(".density.pt"))


class _RestoreParts(nn.Module):
    def __init__(
        self, model: Restorer, defence: EntropyRegularizer | None, layer: str, gan: GanLoss | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.defence = defence
        self.layer = layer
        self.gan = gan

    def forward(
        self,
        low: Float[Tensor, "b 3 h w"],
        high: Float[Tensor, "b 3 sh sw"],
        shifted: Float[Tensor, "b 3 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b 3 sh sw"], Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the output, the bits of the feature layer, the Jacobian penalty and the GAN's loss."""
        zero = torch.zeros((), device=low.device)
        together = low if shifted is None else torch.cat([low, shifted])
        if self.defence is None:
            output, bits = self.model(together), zero
        else:
            with self.defence.attached(self.model, self.layer):
                output = self.model(together)
                bits = self.defence.bits()
        penalty = zero
        if shifted is not None:
            output, moved = output.chunk(2)
            penalty = jacobian_penalty(output.float(), moved.float(), shifted - low)
        return output, bits, penalty, zero if self.gan is None else self.gan(output.float(), high)


def _loss_in_words(recipe: Recipe) -> str:
    table, gan = recipe.loss, recipe.gan
    parts = [f"{table.kind.upper()} on {'[0, 255]' if table.scale == '255' else '[-1, 1]'}"]
    if gan is not None:
        parts = [f"{gan.content_weight:g} x content ({gan.content})", f"{gan.weight:g} x adversarial"] + (
            [f"{gan.pixel_weight:g} x {parts[0]}"] if gan.pixel_weight else []
        )
    if recipe.defence is not None:
        parts.append(f"{table.bit_weight * recipe.defence.weight:g} x bits of {recipe.defence.layer or 'the features'}")
    if recipe.jacobian is not None:
        parts.append(f"{recipe.jacobian.weight:g} x Jacobian penalty")
    return " + ".join(parts)


def _layer_of(recipe: Recipe, model: Restorer) -> str:
    layer = recipe.defence.layer if recipe.defence else ""
    try:
        return find_layer(model, recipe.model.first_layer() if layer == "first" else layer)
    except ConfigError as error:
        raise ConfigError(error.message, ("defence", "layer")) from None


def _build_defence(recipe: Recipe, model: Restorer, layer: str) -> EntropyRegularizer | None:
    table = recipe.defence
    if table is None:
        return None
    return EntropyRegularizer(
        _channels_of(model, layer), table.weight, table.delta, table.noise, table.bits_at, table.widths,
        table.init_scale, stream_seed(recipe.seed, "density"),
    )  # fmt: skip


def _channels_of(model: Restorer, layer: str) -> int:
    from resolute.attacks.features import layer_outputs

    with torch.no_grad():
        return layer_outputs(model, torch.zeros(1, 3, 8, 8), (layer,))[0].shape[1]
