"""The training loop: one command for CPU, one GPU or several, resumable to the bit, plain or with a defence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import pickle
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

import resolute
from resolute.defences.entropy import EntropyRegularizer
from resolute.errors import CheckpointError, ConfigError, TrainingError
from resolute.files import write_atomically, write_text
from resolute.measure.fidelity import psnr_y
from resolute.models.base import Card, Restorer
from resolute.models.weights import read_weights, save_model, weights_sha256
from resolute.randomness import stream_seed
from resolute.training.card import model_card
from resolute.training.patches import Patches
from resolute.training.recipe import Recipe

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training run left behind.

    Attributes:
        weights: the safetensors file with the model and its card.
        figures: the last validation.
    """

    weights: Path
    figures: Figures


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    devices: int = 1,
    on_step: Callable[[int, Figures], None] | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a model, or go on where a killed run of the same recipe stopped.

    On a CPU, a resumed run ends with the same weights as an unbroken one: batches and noise depend on (seed, step)
    alone, and the checkpoint holds all the rest.

    Args:
        recipe: what to train and how.
        data: folders of high-resolution images.
        out: folder for checkpoint, log, weights and model card.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: processes to train on together; the batch of the recipe is shared among them.
        on_step: called with (step, figures) after every step, in the first process.
        on_read: called with (images read, images in all).

    Raises:
        ConfigError: ``out`` holds a run of another recipe, or the data does not fit.
        TrainingError: the loss is not finite; the last good checkpoint is kept and written as the model.
        OutputError: a file cannot be written.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator=device, devices=devices, precision=recipe.precision)
    fabric.launch()
    patches = Patches(data, recipe.model.scale, recipe.data.patch, recipe.data.validation, on_read)
    run = _Run(recipe, patches, out, fabric)
    if not run.resume():
        run.begin()
    while run.step < recipe.optimizer.steps:
        figures = run.advance()
        if not math.isfinite(figures["loss"]):
            raise run.abandon(figures)
        if run.step % recipe.validate_every == 0 or run.step == recipe.optimizer.steps:
            figures |= run.validate()
            run.log(figures)
        if run.step % recipe.checkpoint_every == 0 or run.step == recipe.optimizer.steps:
            if not run.is_finite():
                raise run.abandon(figures)
            run.save()
        if on_step is not None and fabric.is_global_zero:
            on_step(run.step, figures)
    return run.finish()


class _Step(nn.Module):
    """Model and defence as one module, so that data-parallel training sees every parameter."""

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


class _Run:
    def __init__(self, recipe: Recipe, patches: Patches, out: Path, fabric: Fabric) -> None:
        self.recipe = recipe
        self.patches = patches
        self.out = out
        self.fabric = fabric
        self.step = 0
        self.last: Figures = {}
        self.started_from = ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "weights"))
            model = recipe.build()
        defence = _build_defence(recipe, model)
        layer = (recipe.defence.layer if recipe.defence else "") or model.feature_layer
        self.parts = _Step(model, defence, layer)
        self.average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        groups = [_group(model, 1.0)]
        if defence is not None and recipe.defence is not None:
            groups.append(_group(defence, recipe.defence.rate))
        optimizer = torch.optim.Adam(groups, lr=recipe.optimizer.rate)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
        self.module, self.optimizer = fabric.setup(self.parts, optimizer)
        if defence is not None:
            defence.generator = torch.Generator(device=fabric.device)

    def begin(self) -> None:
        """Take the weights that the recipe starts from, if it names any."""
        if not self.recipe.start:
            return
        beside = self.out.parent / self.recipe.start / f"{self.recipe.start}.safetensors"
        path = Path(self.recipe.start) if self.recipe.start.endswith(".safetensors") else beside
        if not path.is_file():
            raise ConfigError(f"{self.recipe.name} starts from {path}, which is not there: train that first")
        state, _ = read_weights(path)
        density = path.with_suffix(".density.pt")
        try:
            self.parts.model.load_state_dict(state)
            if self.parts.defence is not None and density.is_file():
                self.parts.defence.density.load_state_dict(torch.load(density, map_location="cpu", weights_only=True))
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise ConfigError(f"{self.recipe.name} cannot start from {path}: {' '.join(str(error).split())}") from None
        self.average = {name: tensor.clone() for name, tensor in self.parts.model.state_dict().items()}
        self.started_from = weights_sha256(state)

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def advance(self) -> Figures:
        """Take one optimiser step and return its figures."""
        table = self.recipe.optimizer
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        low, high = self.patches.batch(self.recipe.seed, self.step, self.recipe.data.batch, rank, ranks)
        low = low.to(self.fabric.device, memory_format=torch.channels_last)
        high = high.to(self.fabric.device)
        if self.parts.defence is not None and self.parts.defence.generator is not None:
            self.parts.defence.generator.manual_seed(stream_seed(self.recipe.seed, "noise", self.step, rank))
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.module.train()
        output, bits = self.module(low)
        reconstruction = F.l1_loss(output.float() * 255.0, high * 255.0)
        weight = self.parts.defence.weight if self.parts.defence is not None else 0.0
        loss = reconstruction + weight * bits
        figures = {"loss": loss.item(), "l1": reconstruction.item(), "bits": bits.item(), "rate": rate}
        if not math.isfinite(figures["loss"]):
            return figures
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if table.clip > 0:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=table.clip)
        self.optimizer.step()
        self.step += 1
        if table.ema > 0:
            # The usual correction: early averages would otherwise remember the initial weights.
            decay = min(table.ema, (1 + self.step) / (10 + self.step))
            for name, tensor in self.parts.model.state_dict().items():
                self.average[name].lerp_(tensor.to(self.average[name]), 1 - decay)
        return figures

    def is_finite(self) -> bool:
        """Tell whether all weights are finite: a finite loss can still have had a gradient that was not."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parts.parameters())

    def validate(self) -> Figures:
        """Return the mean PSNR on Y of the held-out images."""
        if not self.patches.validation:
            return {}
        scores: list[float] = []
        with self._evaluated_model() as model:
            for low, high in self.patches.validation:
                x = torch.from_numpy(low).permute(2, 0, 1).unsqueeze(0).to(self.fabric.device) / 255.0
                y = torch.from_numpy(high).permute(2, 0, 1).unsqueeze(0) / 255.0
                scores.append(psnr_y(model(x).cpu(), y, border=self.recipe.model.scale).item())
        return {"psnr_y": sum(scores) / len(scores)}

    def log(self, figures: Figures) -> None:
        """Append the figures of this step, dropping what a broken run had logged beyond it."""
        self.last = figures
        if not self.fabric.is_global_zero:
            return
        path = self.out / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] < self.step]
        write_text(path, "\n".join([*kept, json.dumps({"step": self.step, **figures})]) + "\n")

    def save(self) -> None:
        """Write the checkpoint: all that is needed to go on as if nothing had happened."""
        if not self.fabric.is_global_zero:
            return
        content = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe), sort_keys=True),
            "step": self.step,
            "parts": self.parts.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "figures": self.last,
            "started_from": self.started_from,
        }
        _write_tensors(self.checkpoint, content)

    def resume(self) -> bool:
        """Take up the checkpoint in ``out``, and tell whether there is one."""
        if not self.checkpoint.exists():
            return False
        try:
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            recipe = content["recipe"]
        except Exception as error:
            raise CheckpointError(f"{self.checkpoint} is damaged ({error}); delete it to start afresh") from None
        if recipe != json.dumps(dataclasses.asdict(self.recipe), sort_keys=True):
            raise ConfigError(f"{self.out} holds a run of another recipe; choose another --out, or delete it")
        self.parts.load_state_dict(content["parts"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average = content["average"]
        self.step, self.last = content["step"], content["figures"]
        self.started_from = content["started_from"]
        return True

    def abandon(self, figures: Figures) -> TrainingError:
        """Go back to the last good checkpoint, write it as the model, and return the error to raise."""
        failed = self.step + 1
        kept = "there was no checkpoint yet"
        if self.checkpoint.exists():
            self.resume()
            self.finish()
            kept = f"the weights of step {self.step} are in {self.out}"
        what = "weights are" if math.isfinite(figures["loss"]) else "loss is"
        return TrainingError(
            f"the {what} not finite at step {failed}; {kept}; "
            "lower optimizer.rate, or set optimizer.clip, and train again"
        )

    def finish(self) -> Trained:
        """Write weights, density and model card."""
        weights = self.out / f"{self.recipe.name}.safetensors"
        if self.fabric.is_global_zero:
            with self._evaluated_model() as model:
                training: dict[str, object] = {
                    "recipe": dataclasses.asdict(self.recipe),
                    "started_from": self.started_from,
                    "steps": self.step,
                    "images": len(self.patches.training),
                    "validation": self.last,
                    "resolute": resolute.__version__,
                    "torch": torch.__version__,
                }
                card = Card(
                    name=self.recipe.name,
                    architecture=model.arguments(),
                    scale=model.scale,
                    licence=f"weights: MIT; trained on images under: {self.recipe.data.licence}",
                    training=training,
                )
                card = save_model(model, weights, card)
            write_text(weights.with_suffix(".md"), model_card(card))
            if self.parts.defence is not None:
                density = self.parts.defence.density.state_dict()
                _write_tensors(self.out / f"{self.recipe.name}.density.pt", density)
        self.fabric.barrier()
        return Trained(weights, self.last)

    @contextlib.contextmanager
    def _evaluated_model(self) -> Generator[Restorer]:
        """Yield the model in evaluation mode, with averaged weights where the recipe asks for them."""
        model = self.parts.model
        live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if self.recipe.optimizer.ema > 0:
            model.load_state_dict(self.average)
        self.parts.eval()
        try:
            with torch.no_grad():
                yield model
        finally:
            model.load_state_dict(live)
            self.parts.train()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of the given step, counted from zero.

    Example:
        >>> recipe = Recipe.read("edsr-s")
        >>> learning_rate(recipe, recipe.optimizer.steps) < 1e-9
        True
    """
    table = recipe.optimizer
    rise = min(1.0, (step + 1) / table.warmup) if table.warmup else 1.0
    if table.schedule == "cosine":
        return table.rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / table.steps)))
    return table.rate * rise * 0.5 ** (step // table.halve_every)


def _group(module: nn.Module, scale: float) -> dict[str, object]:
    return {"params": [parameter for parameter in module.parameters() if parameter.requires_grad], "scale": scale}


def _write_tensors(path: Path, content: object) -> None:
    # Through memory, since the errors of torch.save on a full disk are no OSError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


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
