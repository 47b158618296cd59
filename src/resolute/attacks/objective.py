"""What an attacker maximises: each objective is bound to a model and clean images, and then maps ``x`` to ``(b,)``.

Objectives are per sample: the gradient of one image does not depend on which images share its batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, cast, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ball import Images, Region
from resolute.attacks.features import layer_outputs, live_layers
from resolute.attacks.options import check_fields
from resolute.errors import ConfigError

Bound = Callable[[Images], Float[Tensor, " b"]]


@runtime_checkable
class Objective(Protocol):
    """A quantity to maximise, bound once a batch so that clean quantities are computed once."""

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        """Return the objective as a function of the attacked images."""
        ...


def bound_to(objective: Objective, model: nn.Module, clean: Images) -> Bound:
    """Bind an objective, and hold what it returns, as that of somebody else may, to one number an image.

    Raises:
        ConfigError: ``bind`` or the function that it returns gives something else.
    """
    bound = cast("object", objective.bind(model, clean))
    name = type(objective).__name__
    if not callable(bound):
        raise ConfigError(
            f"bind of the objective {name} returns an object of type {type(bound).__name__}, not a function of images"
        )

    def values(x: Images) -> Float[Tensor, " b"]:
        found: object = bound(x)
        if isinstance(found, Tensor) and found.shape == (len(x),) and found.is_floating_point():
            return found
        got = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"the objective {name} returns {got.removeprefix('torch.')} for {len(x)} images; return a float tensor of "
            f"shape ({len(x)},), one number an image"
        )

    return values


def output_of(model: nn.Module, x: Images) -> Tensor:
    """Return what a model makes of images, in float32.

    Raises:
        ConfigError: it is no tensor.
    """
    y: object = model(x)
    if not isinstance(y, Tensor):
        raise ConfigError(
            f"{type(model).__name__} returns an object of type {type(y).__name__} for images, not a tensor; "
            "as_restorer finds the image in it"
        )
    return y.float()


@final
@dataclasses.dataclass(frozen=True)
class OutputShift:
    """Squared distance of the output from its clean value, a mean over channels and pixels (eq. 14).

    The paper writes the norm; the mean of squares has the same maximisers and the same gradient signs, and is smooth
    where the norm is not. Its gradient at the clean image is exactly zero, so an attack must start beside it.
    """

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        with torch.no_grad():
            reference = output_of(model, clean)

        def shift(x: Images) -> Float[Tensor, " b"]:
            return (output_of(model, x) - reference).square().flatten(1).mean(dim=1)

        return shift


@final
@dataclasses.dataclass(frozen=True)
class RegionShift:
    """Squared distance of the output from its clean value outside a region of the input, a mean over what is outside.

    The partial attack of Choi et al. (ICCV 2019) perturbs the region and counts the damage on its complement.
    """

    region: Region

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        with torch.no_grad():
            reference = output_of(model, clean)
        height, width = clean.shape[-2:]
        outside = ~self.region.mask(height, width).to(clean.device)
        for dim, ratio in enumerate((reference.shape[-2] // height, reference.shape[-1] // width)):
            outside = outside.repeat_interleave(ratio, dim)
        if not bool(outside.any()):
            raise ValueError("the region covers the whole image and leaves nothing to measure on; choose a smaller one")

        def shift(x: Images) -> Float[Tensor, " b"]:
            return (output_of(model, x) - reference).square()[..., outside].flatten(1).mean(dim=1)

        return shift


@final
@dataclasses.dataclass(frozen=True)
class ScoreGain:
    """The score of a quality metric, which an attacker raises, or lowers with ``sign=-1``."""

    sign: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        check_fields(self)

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        return lambda x: self.sign * output_of(model, x)


@final
@dataclasses.dataclass(frozen=True)
class FeatureShift:
    """Squared distance of the features from their clean values, a mean over elements, summed over layers.

    Args:
        layers: names, words or patterns (see ``find_layers``); empty for the model's own ``feature_layer``.
    """

    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        with torch.no_grad():
            layers = live_layers(model, clean, self.layers)
            references = [phi.float() for phi in layer_outputs(model, clean, layers)]

        def shift(x: Images) -> Float[Tensor, " b"]:
            outputs = layer_outputs(model, x, layers)
            distances = [
                (phi.float() - reference).square().reshape(len(x), -1).mean(dim=1)
                for phi, reference in zip(outputs, references, strict=True)
            ]
            return torch.stack(distances).sum(dim=0)

        return shift


@final
@dataclasses.dataclass(frozen=True)
class FeatureDisruption:
    """The feature disruptive objective (eq. 13; Ganeshan et al., ICCV 2019), a mean over layers.

    ``log ||{Φ : Φ < C}|| - log ||{Φ : Φ >= C}||`` with C the mean over channels at each position: what was strong is to
    become weak and what was weak strong.

    Args:
        layers: names, words or patterns (see ``find_layers``); empty for the model's own ``feature_layer``, that of
            eq. 13.
        mask: take the two sets from the ``clean`` features, as the authors' code does, or from the ``attacked`` ones
            at every step. The paper leaves it open, and the choice moves results by some 2 dB.
    """

    layers: tuple[str, ...] = ()
    mask: Literal["clean", "attacked"] = "clean"

    def __post_init__(self) -> None:
        check_fields(self)

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        with torch.no_grad():
            layers = live_layers(model, clean, self.layers)
            fixed = [_below_channel_mean(phi) for phi in layer_outputs(model, clean, layers)]

        def disruption(x: Images) -> Float[Tensor, " b"]:
            outputs = layer_outputs(model, x, layers)
            terms: list[Tensor] = []
            for phi, clean_mask in zip(outputs, fixed, strict=True):
                low = clean_mask if self.mask == "clean" else _below_channel_mean(phi)
                terms.append(_log_norm(phi.float() * low, len(x)) - _log_norm(phi.float() * ~low, len(x)))
            return torch.stack(terms).mean(dim=0)

        return disruption


def _below_channel_mean(phi: Images) -> Tensor:
    # Of transformers' tokens the channels come last.
    return phi.detach() < phi.detach().mean(dim=1 if phi.ndim == 4 else -1, keepdim=True)


def _log_norm(phi: Images, b: int) -> Float[Tensor, " b"]:
    # Attention puts the windows of an image one after the other along the first dimension.
    return 0.5 * torch.log(phi.square().reshape(b, -1).sum(dim=1) + 1e-20)
