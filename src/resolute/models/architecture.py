"""What an architecture says of itself: how its checkpoints are recognised, how its network is built, and its facts."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from resolute.models.base import Restorer, Scorer

Model = TypeVar("Model", bound=Restorer | Scorer, covariant=True)
Weights = Mapping[str, Tensor]
Arguments = dict[str, object]

# So many weights more than there are may a network have: then what is missing is named.
_SLACK = 1_000_000


def _whole(state: Weights, scale: int | None) -> tuple[Weights, list[int]]:
    return state, []


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture(Generic[Model]):
    """One architecture; each states one in the file of its network, and ``models.architectures`` lists them all.

    Attributes:
        name: what recipes call it.
        network: its class, whose constructor has the arguments that recipes and cards give.
        detects: tells from names and shapes whether weights have one of its layouts.
        read: the constructor's arguments that such weights tell, and the weights by the names in the network.
        first_layer: name of the layer that sees the image first (section 5.4 of Choi et al., ACCV 2020).
        select: of a checkpoint of several scales, keeps the one asked for, and returns which it holds besides.
    """

    name: str
    network: Callable[..., Model]
    detects: Callable[[Weights], bool]
    read: Callable[[Weights], tuple[Arguments, Weights]]
    first_layer: str = ""
    select: Callable[[Weights, int | None], tuple[Weights, list[int]]] = _whole

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        """Pickle by name: a model that is sent to a worker holds its architecture, whose functions are not sent."""
        return _named, (self.network.__module__, self.name)

    @property
    def title(self) -> str:
        """What its authors call it: the name of its class."""
        return self.network.__name__

    def takes(self, argument: str) -> bool:
        """Tell whether the constructor has an argument of this name."""
        return argument in inspect.signature(self.network).parameters

    def load(self, state: Weights, options: Mapping[str, object] | None = None) -> Model:
        """Build the network that weights belong to, and load them strictly.

        Args:
            state: the weights.
            options: arguments of the constructor that no shape tells.

        Raises:
            RuntimeError: missing or surplus keys, or shapes that do not fit together.
            ValueError, LookupError, ArithmeticError: no such network has these shapes.
            TypeError: whole numbers stand for weights.

        Example:
            >>> from resolute.models.edsr import ARCHITECTURE, EDSR
            >>> state = EDSR(scale=2, blocks=1, channels=4).state_dict()
            >>> ARCHITECTURE.load(state, {"res_scale": 0.1}).arguments()["res_scale"]
            0.1
        """
        arguments, named = self.read(state)
        # Without memory first: sizes that a few names and shapes tell can be any, also those of a small file.
        with torch.device("meta"):
            blank = self.network(**{**arguments, **(options or {})}).state_dict()
        counts = [sum(tensor.numel() for tensor in tensors.values()) for tensors in (blank, named)]
        if counts[0] > 2 * counts[1] + _SLACK:
            raise RuntimeError(f"such a network has {counts[0]:,} weights, and these are {counts[1]:,}")
        for name in blank.keys() & named.keys():
            if blank[name].is_floating_point() and not named[name].is_floating_point():
                raise TypeError(f"{name} is {str(named[name].dtype)[6:]}, where the network has floating-point numbers")
        # Its first weights are overwritten at once, and are none of what a seeded training draws.
        with torch.random.fork_rng(devices=[]):
            model = self.network(**{**arguments, **(options or {})})
        model.load_state_dict(dict(named), strict=True)
        return model


def _named(module: str, name: str) -> object:
    made = vars(importlib.import_module(module)).values()
    return next(value for value in made if isinstance(value, Architecture) and value.name == name)


def holds(*names: str) -> Callable[[Weights], bool]:
    """Return a test of whether weights have all of these names.

    Example:
        >>> holds("head.weight")({"head.weight": torch.zeros(1), "tail.weight": torch.zeros(1)})
        True
    """
    return lambda state: state.keys() >= set(names)
