"""Hardening as a training task: a model that is there already, on patches clean and attacked."""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from resolute.defences.adversarial import attacked_patches
from resolute.errors import ConfigError, ModelWarning, TrainingError
from resolute.measure.fidelity import psnr_y
from resolute.models.base import Restorer, device_of, frozen
from resolute.models.weights import State
from resolute.pairing import ImageFiles
from resolute.randomness import generator_for
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.hardener import Hardener, Outputs, reconstruction_loss
from resolute.training.judge import BROKEN, EQUAL, Photograph
from resolute.training.patches import Patches
from resolute.training.reached import reach_of
from resolute.training.restore_recipe import LossTable
from resolute.training.task import Figures, Task

# Of the attack of a validation, which watches and does not judge; and the side of its images. Those on which the limit
# on lost clean PSNR is held are larger, since what is lost differs from place to place.
_WATCH_STEPS = 10
_WATCH_SIDE, _LIMIT_SIDE = 48, 128

# Of the weights; where training reaches less, it is said.
_MOST = 0.5

# Root mean square of weights below which they train more slowly; those of a usual convolution have ten times as much.
_TINY = 1e-3

# dB of clean PSNR below the model before at which a training has diverged, whatever its loss says.
_LOST = 10.0

# Between two validations, by how much what hardens comes to weigh more or less, and what it may weigh.
_PACE, _EMPHASES = 1.5, (0.125, 16.0)

# Of the share of the way between weights: to a thousandth.
_BISECTIONS = 10

# Side beyond which a photograph is cut to its middle, so that a folder from a camera fits into memory.
LARGEST = 1024

Writer = Callable[[Restorer, Path, dict[str, object]], None]


@final
class HardenTask(Task[Restorer]):
    """The distance from the original of what the model makes of clean and of attacked patches.

    Args:
        recipe: how.
        model: changed in place; BatchNorm and dropout stay as in use.
        photos: files of high-resolution images, or folders of them.
        write: writes the model, called with (model, file, facts about the training).
        progress: called with (images read, images in all).
        unfreeze: train weights that a constructor has frozen too, where most are.

    Raises:
        ConfigError: too few or too small images, or no weights to train.

    Attributes:
        held_out: images that are not trained on.
        made: the model as it was written.
        reach: what of the model is trained.
        kept: share of the way from the weights before to those after that was kept, for the sake of clean PSNR.
    """

    def __init__(
        self,
        recipe: HardenRecipe,
        model: Restorer,
        photos: Sequence[Path | ImageFiles],
        write: Writer,
        progress: Callable[[int, int], None] | None = None,
        *,
        unfreeze: bool = False,
    ) -> None:
        self.reach = reach_of(model, unfreeze)
        if not self.reach.share:
            raise ConfigError(
                "the model has no weights that can be trained: all are frozen, or it has none; give the weights a "
                "gradient with model.requires_grad_(True)"
            )
        if self.reach.unfrozen:
            for parameter in model.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
        if self.reach.share < _MOST:
            warnings.warn(
                f"training reaches {self.reach.share:.0%} of the weights alone: the others are frozen, unused, or "
                "computed anew whenever the network runs",
                ModelWarning,
                stacklevel=2,
            )
        self.recipe = recipe
        self.patches = Patches(
            photos, model.scale, recipe.data.patch, recipe.data.validation, progress, largest=LARGEST
        )
        if recipe.data.validation and not self.patches.validation:
            raise ConfigError(
                f"none of the photographs held out for validation has {recipe.data.patch * model.scale} pixels on both "
                "sides; give more or larger ones"
            )
        self.memory_format = torch.channels_last if _takes_channels_last(model) else torch.contiguous_format
        self.before = copy.deepcopy(model).eval().requires_grad_(False)
        self.before.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
        self._write = write
        self.made: Restorer = model
        self.kept = 1.0
        regularised = () if recipe.defence is None else recipe.defence.layers
        first = _first_layer(model) if "first" in regularised else ""
        self.hardener = Hardener(
            recipe, model, recipe.seed, first=first, frozen_norms=True, branches=self.reach.branches
        )
        rates = [] if recipe.defence is None else [(self.hardener.regularizers, recipe.defence.rate)]
        # Where it is saved with the weights.
        self.hardener.register_buffer("emphasis", torch.ones(()))
        super().__init__(
            model, self.hardener, len(self.patches.training), rates=rates, paces=_paces(model), fixed=[self.before]
        )

    @property
    def held_out(self) -> list[Photograph]:
        """The photographs that are not trained on."""
        pairs = zip(self.patches.names, self.patches.validation, strict=True)
        return [Photograph(name, low, high) for name, (low, high) in pairs]

    def weights_in(self, path: Path) -> State:
        raise ConfigError("a hardening starts from its model; leave `start` out of the recipe")

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        return self.patches.batch(self.recipe.seed, step // self.recipe.replay, self.recipe.data.batch, rank, ranks)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        recipe = self.recipe
        low, high = (images.to(self.device) for images in batch)
        low = low.to(memory_format=self.memory_format)
        coarse = recipe.search == "bfloat16" or recipe.precision == "bf16-mixed"
        with torch.autocast(low.device.type, torch.bfloat16, enabled=coarse):
            seen, twins = self.hardener.prepare(low, high, step, rank, step / recipe.optimizer.steps)
        originals = seen.high
        if recipe.anchor and seen.clean:
            copies = -(-seen.clean // len(low))
            with torch.no_grad():
                former = self.before(low[: seen.clean]).float().repeat(copies, 1, 1, 1)
            mixed = torch.lerp(originals[: seen.clean], former, recipe.anchor)
            originals = torch.cat([mixed, originals[seen.clean :]])
        outputs: Outputs = module(seen.low, originals, *twins)
        emphasis = self.hardener.get_buffer("emphasis")
        loss = _weighted(recipe.loss, outputs.output, originals, seen.clean, emphasis)
        added, figures = self.hardener.added(outputs, seen, twins, recipe.loss)
        return loss + emphasis * added, {recipe.loss.kind: loss.item()} | figures

    def validate(self) -> Figures:
        """Return the clean PSNR of the middle of what was held out, and that under a short attack on the truth."""
        attacked: list[float] = []
        watched = self._watched(_WATCH_SIDE)
        for number, (x, y) in enumerate(watched):
            moved = attacked_patches(
                self.model, x, y, epsilon=self.recipe.budget / 255, steps=_WATCH_STEPS,
                relative_step=0.25, start="uniform", generator=generator_for(self.recipe.seed, "watch", number),
            )  # fmt: skip
            with torch.no_grad():
                attacked.append(_psnr(self.model(moved), y, self.model.scale))
        if not attacked:
            return {}
        clean, before = _clean(self.model, self._watched(_LIMIT_SIDE)), self._clean_before
        if clean < before - _LOST:
            raise TrainingError(
                f"the training has diverged: without an attack the model has {clean:.1f} dB on the photographs held "
                f"out, and had {before:.1f} dB; lower optimizer.rate in a recipe of your own"
            )
        figures = {"psnr_y": clean, "attacked": sum(attacked) / len(attacked)}
        return figures | {"emphasis": self._steered(before - clean)} if self.recipe.clean_loss else figures

    def _steered(self, lost: float) -> float:
        """Return what attacked patches and penalties weigh from here on: the more, the less clean PSNR is lost."""
        left = 1 - lost / self.recipe.clean_loss
        emphasis = self.hardener.get_buffer("emphasis")
        emphasis.mul_(_PACE ** max(-1.0, min(left, 1.0))).clamp_(*_EMPHASES)
        return float(emphasis)

    def save(self, weights: Path, training: dict[str, object]) -> None:
        if self.recipe.clean_loss and self.held_out:
            self.kept = self._take_back(self.recipe.clean_loss)
            training |= {"kept": self.kept}
        self.made = copy.deepcopy(self.model)
        self._write(self.model, weights, training)

    def _take_back(self, most: float) -> float:
        """Move the weights towards those before until no more clean PSNR is lost; return the share that was kept."""
        after = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        images, least = self._watched(_LIMIT_SIDE), self._clean_before - most

        def holds(share: float) -> bool:
            self.model.load_state_dict(between(self.before.state_dict(), after, share))
            return _clean(self.model, images) >= least

        if holds(1.0):
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            low, high = ((low + high) / 2, high) if holds((low + high) / 2) else (low, (low + high) / 2)
        holds(low)
        return low

    @functools.cached_property
    def _clean_before(self) -> float:
        return _clean(self.before, self._watched(_LIMIT_SIDE))

    def _watched(self, side: int) -> list[tuple[Tensor, Tensor]]:
        return [photograph.cut(side).tensors(self.device) for photograph in self.held_out]

    def seconds_per_step(self, steps: int = 3) -> float:
        """Try a few steps without taking them, and return how long one takes; the model stays as it is."""
        taken: list[float] = []
        for step in range(-1, steps):
            began = time.perf_counter()
            loss, _ = self.loss(self.parts, self.batch(max(step, 0), 0, 1), max(step, 0), 0)
            loss.backward()
            self.model.zero_grad(set_to_none=True)
            taken.append(time.perf_counter() - began)
        # The first one finds its memory and its kernels.
        return sorted(taken[1:])[steps // 2]


def _weighted(table: LossTable, output: Tensor, originals: Tensor, clean: int, emphasis: Tensor) -> Tensor:
    """Return the mean distance of outputs, of which those behind the ``clean`` ones weigh more or less."""
    total, weights = torch.zeros_like(emphasis), torch.zeros_like(emphasis)
    for part, weight in ((slice(clean), torch.ones_like(emphasis)), (slice(clean, None), emphasis)):
        if count := len(output[part]):
            total = total + count * weight * reconstruction_loss(table, output[part], originals[part])
            weights = weights + count * weight
    return total / weights


def between(before: State, after: State, share: float) -> State:
    """Return the weights at a share of the straight way from some to others; what is no fraction is that after."""
    return {
        name: torch.lerp(before[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }


def _clean(model: Restorer, images: list[tuple[Tensor, Tensor]]) -> float:
    """Return the mean PSNR of a model without an attack."""
    with torch.no_grad():
        scores = [_psnr(model(x), y, model.scale) for x, y in images]
    return sum(scores) / len(scores)


def _psnr(output: Tensor, truth: Tensor, scale: int) -> float:
    return min(float(psnr_y(output, truth, border=scale)), EQUAL) if bool(output.isfinite().all()) else BROKEN


def _paces(model: Restorer) -> dict[str, float]:
    """Return the share of the learning rate that tiny weights take; of the others nothing is said.

    A step of Adam is as long as the rate whatever the weight. Networks whose branches were merged have weights of 1e-5
    beside others of 10, and the first step would be their end.
    """
    spreads = {name: float(weight.detach().square().mean().sqrt()) for name, weight in model.named_parameters()}
    return {name: spread / _TINY for name, spread in spreads.items() if 0 < spread < _TINY}


def _first_layer(model: Restorer) -> str:
    """Return the name of the first convolution that makes features of an image; empty where there is none."""
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, _output, name=name: ran.append(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels > 3
    ]
    try:
        with torch.no_grad():
            model(torch.full((1, 3, 24, 24), 0.5, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return ran[0] if ran else ""


def _takes_channels_last(model: Restorer) -> bool:
    """Tell whether a model gives the same, gradient included, with its weights in the layout that is faster on CPUs."""
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    device = device_of(model)
    tried = copy.deepcopy(model).eval()

    def output() -> tuple[Tensor, Tensor]:
        images = x.to(device).requires_grad_()
        y = tried(images)
        (gradient,) = torch.autograd.grad(y.square().sum(), images)
        return y.detach(), gradient

    with frozen(tried):
        before = output()
        try:
            tried.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
            after = output()
        except (RuntimeError, ValueError):  # view() of somebody's forward, say
            return False
    return all(
        bool(torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.nan_to_num().abs().max()), equal_nan=True))
        for a, b in zip(before, after, strict=True)
    )
