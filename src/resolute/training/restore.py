"""Training of a super-resolution model, plain or with the entropy regulariser."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.entropy import EntropyRegularizer
from resolute.errors import ConfigError
from resolute.files import write_atomically, write_text
from resolute.measure.fidelity import psnr_y
from resolute.models.base import Card, Restorer
from resolute.models.weights import read_weights, save_model, weights_sha256
from resolute.randomness import stream_seed
from resolute.training.card import model_card
from resolute.training.patches import Patches
from resolute.training.recipe import Recipe
from resolute.training.task import Figures, Task


@final
class RestoreTask(Task):
    """L1 between the output and the original, plus the bits of a feature layer where the recipe has a defence.

    Raises:
        ConfigError: the data does not fit, or the defence names a layer that does not exist.
    """

    def __init__(
        self, recipe: Recipe, data: Sequence[Path], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.recipe = recipe
        self.patches = Patches(data, recipe.model.scale, recipe.data.patch, recipe.data.validation, progress)
        self.images = len(self.patches.training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "weights"))
            self.restorer = recipe.build()
        self.defence = _build_defence(recipe, self.restorer)
        layer = (recipe.defence.layer if recipe.defence else "") or self.restorer.feature_layer
        self.model = self.restorer
        self.parts = _Parts(self.restorer, self.defence, layer)
        self.device = torch.device("cpu")

    def groups(self) -> list[tuple[nn.Module, float]]:
        groups: list[tuple[nn.Module, float]] = [(self.restorer, 1.0)]
        if self.defence is not None and self.recipe.defence is not None:
            groups.append((self.defence, self.recipe.defence.rate))
        return groups

    def move(self, device: torch.device) -> None:
        self.device = device
        if self.defence is not None:
            self.defence.generator = torch.Generator(device=device)

    def start(self, path: Path) -> str:
        state, _ = read_weights(path)
        density = path.with_suffix(".density.pt")
        self.restorer.load_state_dict(state)
        if self.defence is not None and density.is_file():
            self.defence.density.load_state_dict(torch.load(density, map_location="cpu", weights_only=True))
        return weights_sha256(state)

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        return self.patches.batch(self.recipe.seed, step, self.recipe.data.batch, rank, ranks)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        low = batch[0].to(self.device, memory_format=torch.channels_last)
        high = batch[1].to(self.device)
        weight = 0.0
        if self.defence is not None and self.defence.generator is not None:
            self.defence.generator.manual_seed(stream_seed(self.recipe.seed, "noise", step, rank))
            weight = self.defence.weight
        output, bits = module(low)
        reconstruction = F.l1_loss(output.float() * 255.0, high * 255.0)
        return reconstruction + weight * bits, {"l1": reconstruction.item(), "bits": bits.item()}

    def validate(self) -> Figures:
        scores: list[float] = []
        for low, high in self.patches.validation:
            x = torch.from_numpy(low).permute(2, 0, 1).unsqueeze(0).to(self.device) / 255.0
            y = torch.from_numpy(high).permute(2, 0, 1).unsqueeze(0) / 255.0
            scores.append(psnr_y(self.restorer(x).cpu(), y, border=self.recipe.model.scale).item())
        return {"psnr_y": sum(scores) / len(scores)} if scores else {}

    def save(self, weights: Path, training: dict[str, object]) -> None:
        card = Card(
            name=self.recipe.name,
            architecture=self.restorer.arguments(),
            scale=self.restorer.scale,
            licence=f"weights: MIT; trained on images under: {self.recipe.data.licence}",
            training=training,
        )
        card = save_model(self.restorer, weights, card)
        write_text(weights.with_suffix(".md"), self._page(card))
        if self.defence is not None:
            buffer = io.BytesIO()
            torch.save(self.defence.density.state_dict(), buffer)
            density = weights.with_suffix(".density.pt")
            write_atomically(density, lambda temporary: temporary.write_bytes(buffer.getbuffer()))

    def _page(self, card: Card) -> str:
        data, defence = self.recipe.data, self.recipe.defence
        facts = {
            "scale": f"x{card.scale}",
            "input, output": "RGB float in [0, 1]",
            "loss": "L1 on [0, 255]" + (f" + {defence.weight:g} x bits of the feature layer" if defence else ""),
            "defence": ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(defence).items())
            if defence
            else "none",
        }
        steps = f"{data.batch} patches of {data.patch} x {data.patch}"
        return model_card(card, facts, steps, {"validation PSNR (Y, border shaved)": ("psnr_y", "{:.2f} dB")})


class _Parts(nn.Module):
    def __init__(self, model: Restorer, defence: EntropyRegularizer | None, layer: str) -> None:
        super().__init__()
        self.model = model
        self.defence = defence
        self.layer = layer

    def forward(self, low: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b 3 sh sw"], Float[Tensor, ""]]:
        if self.defence is None:
            return self.model(low), torch.zeros((), device=low.device)
        with self.defence.attached(self.model, self.layer):
            output = self.model(low)
            return output, self.defence.bits()


def _build_defence(recipe: Recipe, model: Restorer) -> EntropyRegularizer | None:
    table = recipe.defence
    if table is None:
        return None
    layer = table.layer or model.feature_layer
    channels = _channels_of(model, layer)
    return EntropyRegularizer(
        channels,
        weight=table.weight,
        delta=table.delta,
        noise=table.noise,
        bits_at=table.bits_at,
        widths=table.widths,
        init_scale=table.init_scale,
        seed=stream_seed(recipe.seed, "density"),
    )


def _channels_of(model: Restorer, layer: str) -> int:
    from resolute.attacks.features import layer_outputs, resolve_layers

    try:
        with torch.no_grad():
            return layer_outputs(model, torch.zeros(1, 3, 8, 8), resolve_layers(model, (layer,)))[0].shape[1]
    except ValueError as error:
        raise ConfigError(f"defence.layer: {error}") from None
