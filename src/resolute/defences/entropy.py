"""Entropy regularisation of a feature layer (Choi et al., ACCV 2020, section 3).

A learned density over the values of one feature layer Φ gives the bits that Φ carries (eq. 1); training minimises
``reconstruction + lambda * bits`` (eq. 2) with uniform noise on Φ (eq. 12), so that small changes of Φ stop mattering.
At test time the model runs as it always did: nothing is added, rounded or replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.models.layers import find_layer

LN2 = math.log(2.0)


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

    The two halves can be used alone, as in the paper's ablation (fig. 5): ``noise=False`` is probability estimation
    alone, ``weight=0`` is noise alone.

    Args:
        channels: D of the layer.
        weight: λ of eq. 2, in bits per unit of the reconstruction loss. The paper's values belong to a loss on the
            scale of [0, 255]; on [0, 1] the same λ is 255 times stronger.
        delta: δ of eqs 11 and 12, in units of Φ.
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
    """

    def __init__(
        self,
        channels: int,
        weight: float = 1.0,
        delta: float = 1.0,
        noise: bool = True,
        bits_at: Literal["noisy", "clean"] = "noisy",
        widths: tuple[int, ...] = (3, 3, 3),
        init_scale: float = 10.0,
        seed: int = 0,
    ) -> None:
        if delta <= 0 or weight < 0:
            raise ValueError(f"delta is positive and weight is not negative, not {delta} and {weight}")
        super().__init__()
        # With noise alone the density takes no part, and data-parallel training must not wait for its gradients.
        self.density = ChannelDensity(channels, widths, init_scale, seed).requires_grad_(weight > 0)
        self.weight = weight
        self.delta = delta
        self.noise = noise
        self.bits_at = bits_at
        self.generator: torch.Generator | None = None
        self._bits: Tensor | None = None

    def extra_repr(self) -> str:
        return f"weight={self.weight}, delta={self.delta}, noise={self.noise}, bits_at={self.bits_at!r}"

    def forward(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return Φ with noise in training mode, remembering its bits; return Φ itself in evaluation mode."""
        if not self.training:
            return phi
        noisy = phi
        if self.noise:
            uniform = torch.rand(phi.shape, generator=self.generator, device=phi.device, dtype=torch.float32)
            noisy = phi + (uniform - 0.5) * self.delta
        if self.weight > 0:
            self._bits = self.density.bits(noisy if self.bits_at == "noisy" else phi, self.delta).mean()
        else:
            self._bits = torch.zeros((), device=phi.device)
        return noisy

    @contextlib.contextmanager
    def attached(self, model: nn.Module, layer: str) -> Generator[EntropyRegularizer]:
        """Attach to the submodule of ``model`` that ``layer`` means (see ``find_layer``) for the duration of the block.

        Raises:
            ConfigError: the model has no such submodule, or several.
        """
        target = model.get_submodule(find_layer(model, layer))
        handle = target.register_forward_hook(lambda _module, _inputs, output: self(output))
        try:
            yield self
        finally:
            handle.remove()
            self._bits = None

    def bits(self) -> Float[Tensor, ""]:
        """Return the mean bits of an element of Φ in the last training pass (eq. 1).

        Raises:
            RuntimeError: no pass of an attached model in training mode has been made.
        """
        if self._bits is None:
            raise RuntimeError("no bits yet: attach the regulariser, set it to train(), and run the model first")
        return self._bits

    def loss(self) -> Float[Tensor, ""]:
        """Return λ times the bits of the last training pass, the term to add to the reconstruction loss (eq. 2)."""
        return self.weight * self.bits()
