"""What hardens a model while it trains: two kinds of methods, frozen dataclasses whose fields are keys of a recipe.

A method of the first kind changes what the network is trained on, and may judge the outputs for it; one of the second
asks that the network answers every input and a neighbour of it alike. They combine: first all of the first kind, in the
order of the recipe's tables, then all of the second. What acts on a layer is ``defences.entropy``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import pydantic
import torch
from jaxtyping import Float
from torch import Tensor, nn

Low = Float[Tensor, "n 3 h w"]
High = Float[Tensor, "n 3 sh sw"]

# Of images in [0, 1], on the scale of the recipe's loss.
Distance = Callable[[High, High], Float[Tensor, ""]]

STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


@final
@dataclasses.dataclass(frozen=True)
class Seen:
    """What a network is trained on in one step.

    Attributes:
        low: what it sees, in [0, 1]; patches that nobody attacked come first.
        high: what it should make of them.
        clean: how many of them nobody attacked.
    """

    low: Low
    high: High
    clean: int

    @staticmethod
    def of(low: Low, high: High) -> Seen:
        """Return a batch as it was read."""
        return Seen(low, high, len(low))


@final
@dataclasses.dataclass(frozen=True)
class Moment:
    """When a step is taken.

    Attributes:
        generator: of all that is random in it, on the device of the patches.
        progress: share of the training that is done, from 0 to 1.
    """

    generator: torch.Generator
    progress: float = 1.0

    def risen(self, ramp: float) -> float:
        """Return what has risen evenly from 0 to 1 over the first ``ramp`` of the training.

        Example:
            >>> Moment(torch.Generator(), 0.1).risen(0.4), Moment(torch.Generator(), 0.6).risen(0.4)
            (0.25, 1.0)
        """
        return min(1.0, self.progress / ramp) if ramp else 1.0


class InputMethod(ABC):
    """A method that changes what the network is trained on."""

    @abstractmethod
    def inputs(self, model: nn.Module, seen: Seen, moment: Moment) -> Seen:
        """Return what to train on instead; the model comes back as it was."""


class OutputMethod(ABC):
    """A method that adds to the loss what it finds in the outputs for a batch."""

    @abstractmethod
    def judged(self, output: High, distance: Distance) -> Float[Tensor, ""]:
        """Return what to add to the loss.

        Args:
            output: of what the methods that change inputs have made of the batch.
            distance: the recipe's loss.
        """


class TwinMethod(ABC):
    """A method that compares what the network makes of an input and of a neighbour of it."""

    @abstractmethod
    def twin(self, model: nn.Module, low: Low, moment: Moment) -> Low:
        """Return a neighbour of every input; the model comes back as it was."""

    @abstractmethod
    def penalty(self, output: High, other: High, shift: Low, distance: Distance) -> Float[Tensor, ""]:
        """Return what to add to the loss.

        Args:
            output: of the inputs.
            other: of their neighbours.
            shift: from the inputs to their neighbours.
            distance: the recipe's loss.
        """
