"""Entropy regularisation of a feature layer (Choi et al., ACCV 2020, section 3).

A learned density over the values of one feature layer Φ gives the bits that Φ carries (eq. 1); training minimises
``reconstruction + lambda * bits`` (eq. 2) with uniform noise on Φ (eq. 12), so that small changes of Φ stop mattering.
At test time the model runs as it always did: nothing is added, rounded or replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Generator
from typing import Annotated, Any, Literal, TypeVar, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.method import STRICT
from resolute.errors import ConfigError
from resolute.models.layers import find_layer

Found = TypeVar("Found")

LN2 = math.log(2.0)

# A channel that carries fewer bits an element on average is as good as switched off.
LIVE = 0.1

_SPREAD = re.compile(r"\s*(?P<share>[0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*std\s*")


def _checked(delta: float | str) -> float | str:
    try:
        in_spreads(delta)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return delta


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Entropy:
    """The entropy regulariser as a table of a recipe; see ``EntropyRegularizer`` for all but the attributes below.

    Attributes:
        layer: names or patterns of the layers it attaches to, each with a density of its own; empty for the model's own
            feature layer, ``first`` for its first convolution (section 5.4).
        weight: λ of eq. 2, in units of ``loss.bit_weight``; of several layers the mean of the bits counts.
        rate: learning rate of the density, as a multiple of the model's.
        ramp: share of the training over which λ rises from 0 for the model, while the density learns Φ from the start.
    """

    kind: Literal["entropy"] = "entropy"
    layer: str | tuple[str, ...] = ""
    weight: float = pydantic.Field(default=1.0, ge=0)
    delta: Annotated[float | str, pydantic.AfterValidator(_checked)] = 1.0
    noise: bool = True
    bits_at: Literal["noisy", "clean"] = "noisy"
    widths: tuple[int, ...] = (3, 3, 3)
    init_scale: float = pydantic.Field(default=10.0, gt=0)
    rate: float = pydantic.Field(default=1.0, gt=0)
    ramp: float = pydantic.Field(default=0.0, ge=0, le=1)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("no layer is named; leave it out for the model's own feature layer", ("layer",))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers as a tuple, one empty name for the model's own."""
        return (self.layer,) if isinstance(self.layer, str) else self.layer

    def regularizer(self, channels: int, seed: int) -> EntropyRegularizer:
        """Return a regulariser for one layer."""
        return EntropyRegularizer(
            channels, self.weight, self.delta, self.noise, self.bits_at, self.widths, self.init_scale, seed
        )


def in_spreads(delta: float | str) -> tuple[float, bool]:
    """Return a δ as a number, and whether it is in units of Φ's own spread.

    Raises:
        ValueError: it is neither a positive number nor as ``0.05 std``.

    Example:
        >>> in_spreads(0.5), in_spreads("0.05 std")
        ((0.5, False), (0.05, True))
    """
    if isinstance(delta, str):
        found = _SPREAD.fullmatch(delta)
        if found is None or not 0 < float(found["share"]) < math.inf:
            raise ValueError(f'delta is a positive number, or as "0.05 std", not {delta!r}')
        return float(found["share"]), True
    if not 0 < delta < math.inf:
        raise ValueError(f"delta is positive, not {delta}")
    return float(delta), False


class ChannelDensity(nn.Module):
    """A learned probability density for each channel, from a cascade of K monotone functions (eqs 3 to 10).

    ``c_d = f_K ∘ ... ∘ f_1`` with ``f_i(x) = g_i(softplus(M_i) x + b_i)``, ``g_i(x) = x + tanh(a_i) * tanh(x)`` and a
    sigmoid at the end, so ``c_d`` rises from 0 to 1 whatever the parameters. All channels are evaluated at once.

    Args:
        channels: D, the number of channels, each with a density of its own.
        widths: widths between the K functions; the default is the paper's K = 4, m_2 = m_3 = m_4 = 3.
        init_scale: with zero biases the density starts as a logistic one of this scale, in units of Φ.
        seed: of the initial biases, U(-1/2, 1/2).

    Example:
        >>> density = ChannelDensity(channels=8)
        >>> sum(p.numel() for p in density.parameters()) // 8
        43
        >>> density.bits(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...] = (3, 3, 3), init_scale: float = 10.0, seed: int = 0
    ) -> None:
        if channels < 1 or any(width < 1 for width in widths):
            raise ValueError(f"channels and widths are at least 1, not {channels} and {widths}")
        if init_scale <= 0:
            raise ValueError(f"init_scale is positive, not {init_scale}")
        super().__init__()
        self.channels = channels
        generator = torch.Generator().manual_seed(seed)
        sizes = (1, *widths, 1)
        gain = init_scale ** (1 / (len(sizes) - 1))
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for inputs, outputs in itertools.pairwise(sizes):
            start = math.log(math.expm1(1 / (gain * outputs)))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, outputs, 1, generator=generator) - 0.5))
        for outputs in widths:
            self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))

    def logits(self, values: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
        """Return the logit of the cumulative distribution ``c_d`` at ``values``, a row a channel."""
        x = values.unsqueeze(1)
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = torch.baddbmm(bias, F.softplus(matrix), x)
            if i < len(self.factors):
                x = torch.addcmul(x, torch.tanh(self.factors[i]), torch.tanh(x))
        return x.squeeze(1)

    def cdf(self, values: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
        """Return ``c_d`` (eq. 3) at ``values``, a row a channel."""
        return torch.sigmoid(self.logits(values))

    def bits(self, phi: Float[Tensor, "b c h w"], delta: float = 1.0) -> Float[Tensor, "b c h w"]:
        """Return ``-log2(c_d(Φ + δ/2) - c_d(Φ - δ/2))`` (eqs 1 and 11) at every element.

        The difference is taken in log space on the side of the sigmoid where it does not cancel, so that bits and
        gradients stay exact however far Φ lies in a tail, where a difference of sigmoids in float32 reads zero.

        Raises:
            ValueError: Φ has another number of channels.
        """
        if phi.shape[1] != self.channels:
            raise ValueError(f"the layer has {phi.shape[1]} channels, the density {self.channels}")
        values = phi.transpose(0, 1).flatten(1)
        dtype = torch.promote_types(values.dtype, torch.float32)
        with torch.autocast(values.device.type, enabled=False):
            values = values.to(dtype)
            lower, upper = self.logits(torch.cat([values - delta / 2, values + delta / 2], dim=1)).chunk(2, dim=1)
            flip = (lower + upper).detach() > 0
            lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
            log_lower, log_upper = F.logsigmoid(lower), F.logsigmoid(upper)
            # Beyond some 1e7 scales both logits round to one number, whose logarithm of a difference has no gradient.
            ratio = (log_lower - log_upper).clamp_max(-torch.finfo(dtype).tiny)
            log_probability = log_upper + torch.log(-torch.expm1(ratio))
        bits = log_probability / -LN2
        return bits.view(phi.shape[1], phi.shape[0], *phi.shape[2:]).transpose(0, 1)


class EntropyRegularizer(nn.Module):
    """The defence: bits of a feature layer as a loss, and noise on it while training.

    Attach it to any named layer of any model; the model's source is not touched. While attached and the regulariser is
    in training mode, every forward pass of the model adds noise to the layer (eq. 12) and leaves the mean bits of that
    pass (eq. 1) in ``loss()``. In evaluation mode, or detached, the model is exactly as it was.

    From Φ on the pass runs in float32 whatever the rest runs in: bfloat16 would round small noise away.

    The two halves can be used alone, as in the paper's ablation (fig. 5): ``noise=False`` is probability estimation
    alone, ``weight=0`` is noise alone.

    Args:
        channels: D of the layer.
        weight: λ of eq. 2, in bits per unit of the reconstruction loss. The paper's values belong to a loss on the
            scale of [0, 255]; on [0, 1] the same λ is 255 times stronger.
        delta: δ of eqs 11 and 12, in units of Φ; or as ``"0.05 std"`` in units of Φ's spread, the standard deviation of
            all its values in the first training pass, in which then ``init_scale`` is meant as well.
        noise: add uniform noise of width δ while training.
        bits_at: evaluate eq. 11 at the ``noisy`` value, as the entropy model that the paper builds on does, or at the
            ``clean`` one. The paper leaves it open.
        widths, init_scale, seed: see ``ChannelDensity``.

    Example:
        >>> from resolute.models import EDSR
        >>> model = EDSR(scale=2, blocks=2, channels=8)
        >>> defence = EntropyRegularizer(channels=8, weight=1.0)
        >>> with defence.attached(model, "long_skip"):
        ...     output = model(torch.rand(1, 3, 6, 6))
        ...     penalty = defence.loss()
        >>> bool(penalty > 0)
        True

    Attributes:
        felt: share of λ that the model feels, for a λ that grows; the density always learns at full.
        unit: what δ and ``init_scale`` are in units of; 0 for a spread that is not known yet.
    """

    unit: Tensor

    def __init__(
        self,
        channels: int,
        weight: float = 1.0,
        delta: float | str = 1.0,
        noise: bool = True,
        bits_at: Literal["noisy", "clean"] = "noisy",
        widths: tuple[int, ...] = (3, 3, 3),
        init_scale: float = 10.0,
        seed: int = 0,
    ) -> None:
        if weight < 0:
            raise ValueError(f"weight is not negative, not {weight}")
        super().__init__()
        # With noise alone the density takes no part, and data-parallel training must not wait for its gradients.
        self.density = ChannelDensity(channels, widths, init_scale, seed).requires_grad_(weight > 0)
        self.weight = weight
        self.delta, self._relative = in_spreads(delta)
        self.noise = noise
        self.bits_at = bits_at
        self.felt = 1.0
        self.generator: torch.Generator | None = None
        self.register_buffer("unit", torch.tensor(0.0 if self._relative else 1.0))
        self._bits: Tensor | None = None
        self._figures: tuple[Tensor, Tensor] | None = None

    def extra_repr(self) -> str:
        delta = f"{self.delta} std" if self._relative else self.delta
        return f"weight={self.weight}, delta={delta}, noise={self.noise}, bits_at={self.bits_at!r}"

    def forward(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return Φ with noise in training mode, remembering its bits; return Φ itself in evaluation mode."""
        if not self.training:
            return phi
        spread = phi.detach().float().std()
        if not self.unit:
            self.unit.copy_(spread)
        noisy = phi
        if self.noise:
            uniform = torch.rand(phi.shape, generator=self.generator, device=phi.device, dtype=torch.float32)
            noisy = phi + (uniform - 0.5) * (self.delta * self.unit)
        live = torch.zeros((), device=phi.device)
        if self.weight > 0:
            felt = _Felt.apply(noisy if self.bits_at == "noisy" else phi, self.felt)
            bits = self.density.bits(felt / self.unit if self._relative else felt, self.delta)
            live = (bits.detach().mean(dim=(0, 2, 3)) > LIVE).sum()
            self._bits = bits.mean()
        else:
            self._bits = torch.zeros((), device=phi.device)
        self._figures = live, spread / self.unit if self._relative else spread
        return noisy

    def figures(self) -> dict[str, float]:
        """Return of the last training pass how many channels carry bits, and the spread of Φ, in units of the first."""
        live, spread = _there(self._figures)
        return {"live": float(live), "spread": float(spread)}

    @contextlib.contextmanager
    def attached(self, model: nn.Module, layer: str) -> Generator[EntropyRegularizer]:
        """Attach to the submodule of ``model`` that ``layer`` means (see ``find_layer``) for the duration of the block.

        Raises:
            ConfigError: the model has no such submodule, or several.
        """
        target = model.get_submodule(find_layer(model, layer))
        with contextlib.ExitStack() as handles, contextlib.ExitStack() as full:

            def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
                device = next((x.device.type for x in inputs if isinstance(x, Tensor)), "cpu")
                if not torch.is_autocast_enabled(device):
                    return inputs
                full.enter_context(torch.autocast(device, enabled=False))
                return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)

            def leave(_module: nn.Module, _inputs: object, output: Any) -> None:
                full.close()

            handles.callback(target.register_forward_pre_hook(enter).remove)
            handles.callback(target.register_forward_hook(lambda _module, _inputs, output: self(output)).remove)
            handles.callback(model.register_forward_hook(leave, always_call=True).remove)
            try:
                yield self
            finally:
                self._bits = None

    def bits(self) -> Float[Tensor, ""]:
        """Return the mean bits of an element of Φ in the last training pass (eq. 1).

        Raises:
            RuntimeError: no pass of an attached model in training mode has been made.
        """
        return _there(self._bits)

    def loss(self) -> Float[Tensor, ""]:
        """Return λ times the bits of the last training pass, the term to add to the reconstruction loss (eq. 2)."""
        return self.weight * self.bits()


def _there(found: Found | None) -> Found:
    if found is None:
        raise RuntimeError("no bits yet: attach the regulariser, set it to train(), and run the model first")
    return found


@final
class _Felt(torch.autograd.Function):
    """A tensor as it is, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.share = share
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.share, None
