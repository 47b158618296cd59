"""A model and what hardens it while it trains: all that a step is, but for the batch and the loss on its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.attacks.features import layer_outputs
from resolute.defences.adversarial import Adversarial
from resolute.defences.entropy import EntropyRegularizer
from resolute.defences.method import High, InputMethod, Low, Moment, OutputMethod, Seen, TwinMethod
from resolute.errors import ConfigError
from resolute.models.base import Restorer, device_of
from resolute.models.layers import find_layers
from resolute.models.weights import State
from resolute.of_file import own_code
from resolute.randomness import generator_for, stream_seed
from resolute.training.gan import GanLoss
from resolute.training.reached import in_use
from resolute.training.restore_recipe import LossTable, MethodTables
from resolute.training.task import COLLAPSED, Figures


class Outputs(NamedTuple):
    """What a pass gave: outputs, those for neighbours, bits of the regularised layers, and the loss of a GAN."""

    output: High
    twins: tuple[High, ...]
    bits: Float[Tensor, ""]
    adversary: Float[Tensor, ""]


@final
class Hardener(nn.Module):
    """A model with the methods of a recipe around it; called once a step, so that data-parallel training sees it all.

    Args:
        tables: the methods.
        model: that trains.
        seed: of densities and noise.
        first: name of the model's first convolution, for a regulariser that asks for it.
        gan: SRGAN's losses, or None.
        frozen_norms: keep the model in evaluation mode, so that BatchNorm and dropout stay as in use.
        branches: with that, let all else run as in training, for networks that merge branches when they are used.

    Raises:
        ConfigError: the regulariser names a layer that does not exist, or that no image reaches.
    """

    def __init__(
        self,
        tables: MethodTables,
        model: Restorer,
        seed: int,
        *,
        first: str = "",
        gan: GanLoss | None = None,
        frozen_norms: bool = False,
        branches: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tables = tables
        self.seed = seed
        self.gan = gan
        self.layers = _layers(tables, model, first)
        channels = _channels(model, self.layers)
        self.regularizers = nn.ModuleList(
            tables.defence.regularizer(count, stream_seed(seed, "density", *([number] if number else [])))
            for number, count in enumerate(channels)
            if tables.defence is not None
        )
        self._frozen_norms, self._branches = frozen_norms, branches
        methods = (
            tables.adversarial, tables.jitter, tables.consistency, tables.jacobian, *map(_own, tables.own),
        )  # fmt: skip
        self._inputs = [one for one in methods if isinstance(one, InputMethod)]
        self._judges = [one for one in methods if isinstance(one, OutputMethod)]
        self._twins = [one for one in methods if isinstance(one, TwinMethod)]
        self._carried: tuple[int, Low] | None = None
        self.train()

    @property
    def defences(self) -> list[EntropyRegularizer]:
        """The regularisers, one a layer."""
        return [module for module in self.regularizers if isinstance(module, EntropyRegularizer)]

    def train(self, mode: bool = True) -> Hardener:
        super().train(mode)
        if self._frozen_norms:
            in_use(self.model, mode and self._branches)
        return self

    def prepare(self, low: Low, high: High, step: int, rank: int, progress: float) -> tuple[Seen, tuple[Low, ...]]:
        """Return what the network is trained on in this step, and the neighbours that its answers are compared with.

        Args:
            low: clean patches, in [0, 1].
            high: their originals.
            step: number of the step, of which and the seed all that is random is made.
            rank: of this process.
            progress: share of the training that is done.
        """
        moment = Moment(generator_for(self.seed, "hardening", step, rank, device=low.device), progress)
        for defence in self.defences:
            assert self.tables.defence is not None
            defence.generator = generator_for(self.seed, "noise", step, rank, device=low.device)
            defence.felt = moment.risen(self.tables.defence.ramp)
        seen = Seen.of(low, high)
        for method in self._inputs:
            replays = isinstance(method, Adversarial) and method.replay > 1
            changed = self._replayed(seen, step, moment) if replays else method.inputs(self.model, seen, moment)
            seen = _checked_inputs(method, changed, self.model.scale)
        low = seen.low.detach()
        return seen, tuple(_checked_twin(method, method.twin(self.model, low, moment), low) for method in self._twins)

    def forward(self, low: Low, high: High, *twins: Low) -> Outputs:
        """Return the outputs for inputs and their neighbours, and what the regularisers and the GAN say of them."""
        zero = torch.zeros((), device=low.device)
        with contextlib.ExitStack() as attached:
            for defence, layer in zip(self.defences, self.layers, strict=True):
                attached.enter_context(defence.attached(self.model, layer))
            output, *others = self.model(torch.cat([low, *twins])).chunk(1 + len(twins))
            bits = torch.stack([defence.bits() for defence in self.defences]).mean() if self.layers else zero
        return Outputs(output, tuple(others), bits, zero if self.gan is None else self.gan(output.float(), high))

    def added(
        self, outputs: Outputs, seen: Seen, twins: tuple[Low, ...], table: LossTable
    ) -> tuple[Float[Tensor, ""], Figures]:
        """Return what the methods add to the loss on the outputs, and its parts for the log."""
        if torch.is_grad_enabled() and not outputs.output.requires_grad:
            raise ConfigError("no gradient reaches the weights: a method has frozen or detached them")
        total = torch.zeros((), device=seen.low.device)
        figures: Figures = {}

        def distance(output: High, high: High) -> Float[Tensor, ""]:
            return reconstruction_loss(table, output, high)

        for judge in self._judges:
            total = total + judge.judged(outputs.output.float(), distance)
        for method, other, twin in zip(self._twins, outputs.twins, twins, strict=True):
            penalty = method.penalty(outputs.output.float(), other.float(), twin - seen.low.detach(), distance)
            if not isinstance(cast("object", penalty), Tensor) or penalty.shape:
                raise ConfigError(f"penalty of {type(method).__name__} returns no tensor of one number, of shape ()")
            figures[type(method).__name__.lower()] = penalty.item()
            total = total + penalty
        if self.tables.defence is not None:
            total = total + table.bit_weight * self.tables.defence.weight * outputs.bits
            figures["bits"] = outputs.bits.item()
            several = [defence.figures() for defence in self.defences]
            figures |= {name: sum(one[name] for one in several) / len(several) for name in several[0]}
            if min(one["spread"] for one in several) < COLLAPSED:
                figures["spread"] = 0.0
                total = total * torch.nan
        return total, figures

    def densities(self) -> State:
        """Return the weights of the densities: of one layer by their own names, of several with numbers in front."""
        return self.defences[0].density.state_dict() if len(self.defences) == 1 else self.regularizers.state_dict()

    def load_densities(self, state: State) -> None:
        """Take the densities of another run with the same layers.

        Raises:
            RuntimeError: they do not fit.
        """
        target = self.defences[0].density if len(self.defences) == 1 else self.regularizers
        target.load_state_dict(state)

    def _replayed(self, seen: Seen, step: int, moment: Moment) -> Seen:
        """Return the batch of "free" adversarial training, whose attacked patches keep the gradient of this step."""
        method = self.tables.adversarial
        assert method is not None
        before, attacked = self._carried or (-1, seen.low)
        if step % method.replay and before == step - 1 and attacked.grad is not None:
            found = method.moved_on(attacked.detach(), attacked.grad, seen, moment)
        else:
            found = method.inputs(self.model, seen, moment)
        attacked = found.low[found.clean :].detach().requires_grad_()
        self._carried = step, attacked
        return Seen(torch.cat([found.low[: found.clean], attacked]), found.high, found.clean)


def reconstruction_loss(table: LossTable, output: High, high: High) -> Float[Tensor, ""]:
    """Return the distance of ``output`` from ``high``, both in [0, 1], on the scale of the recipe's loss."""
    factor = 255.0 if table.scale == "255" else 2.0
    distance = F.l1_loss if table.kind == "l1" else F.mse_loss
    return distance(output.float() * factor, high.float() * factor)


def _checked_inputs(method: InputMethod, found: object, scale: int) -> Seen:
    """Return what a method wants trained on, if it can be."""
    name = type(method).__name__
    if not isinstance(found, Seen):
        raise ConfigError(f"inputs of {name} returns no Seen, but a {type(found).__name__}")
    n, _, height, width = found.low.shape
    if found.high.shape != (n, 3, scale * height, scale * width) or not 0 <= found.clean <= n:
        shapes = f"{tuple(found.low.shape)}, {tuple(found.high.shape)} and {found.clean} clean ones"
        raise ConfigError(f"inputs of {name} returns patches and originals that do not fit at x{scale}: {shapes}")
    return found


def _checked_twin(method: TwinMethod, found: object, low: Low) -> Low:
    """Return neighbours of inputs, if they are."""
    if not isinstance(found, Tensor) or found.shape != low.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(f"twin of {type(method).__name__} returns {got} for inputs of shape {tuple(low.shape)}")
    return found


def _own(table: Mapping[str, Any]) -> InputMethod | TwinMethod:
    """Return a method of one's own by its table.

    Raises:
        ConfigError: the file cannot be run, or holds no such method; a field does not exist or has no such value.
    """
    code = own_code(str(table.get("method", "")))
    if code is None:
        raise ConfigError(f"{table.get('method')!r} names no method: give FILE.py:NAME", ("own", "method"))
    kind = code.load()
    if not (isinstance(kind, type) and issubclass(kind, InputMethod | TwinMethod)):
        raise code.error("is no class derived from InputMethod or TwinMethod of resolute.defences.method")
    try:
        return kind(**{key: value for key, value in table.items() if key not in ("method", "sha256")})
    except (TypeError, ValueError) as error:
        raise code.failed("cannot be made with these fields", error) from None


def _layers(tables: MethodTables, model: Restorer, first: str) -> tuple[str, ...]:
    """Return the names of the layers that are regularised."""
    if tables.defence is None:
        return ()
    try:
        named = [first if layer == "first" else layer for layer in tables.defence.layers]
        return find_layers(model, tuple(layer or "phi" for layer in named))
    except ConfigError as error:
        raise ConfigError(error.message, ("defence", "layer")) from None


def _channels(model: Restorer, layers: tuple[str, ...]) -> list[int]:
    """Return how many channels each of the layers has."""
    if not layers:
        return []
    side = 16
    with torch.no_grad():
        outputs = layer_outputs(model, torch.full((1, 3, side, side), 0.5, device=device_of(model)), layers)
    if len(outputs) != len(layers):
        raise ConfigError("a layer that runs several times a pass cannot be regularised", ("defence", "layer"))
    for layer, output in zip(layers, outputs, strict=True):
        if output.ndim != 4:
            raise ConfigError(f"{layer!r} makes no images of features to regularise", ("defence", "layer"))
    return [output.shape[1] for output in outputs]
