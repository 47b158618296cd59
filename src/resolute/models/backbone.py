"""Quality metrics on the features of a network that was first trained to classify ImageNet: what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.architecture import Arguments, Weights
from resolute.models.base import Scorer
from resolute.models.bottlenecks import Group, PaddedConv, bottlenecks
from resolute.models.pooling import ScoreHead, mean_and_std, read_head

_STEM, _LAST = 32, 1280


class Backbone(nn.Module, ABC):
    """A stem, inverted residuals and a last convolution, whose maps are pooled at every size on the way.

    A subclass says which they are, and reads the weights as they were published.

    Attributes:
        groups: of blocks.
        stages: the blocks after which the image is halved next.
        end: name of the last convolution.
    """

    groups: ClassVar[Sequence[Group]]
    stages: ClassVar[tuple[int, ...]]
    end: ClassVar[str] = "last"

    def __init__(self) -> None:
        super().__init__()
        self.stem = PaddedConv(3, _STEM, size=3, stride=2)
        self.blocks = bottlenecks(_STEM, self.groups)
        channels = [outputs for _, outputs, repeats, _, _ in self.groups for _ in range(repeats)]
        self.add_module(self.end, PaddedConv(channels[-1], _LAST))
        self.features = 2 * (sum(channels[i] for i in self.stages) + _LAST)

    @abstractmethod
    def scaled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return an image in [0, 1] on the scale that the classifier learned from."""

    @abstractmethod
    def read(self, path: Path) -> None:
        """Load the published weights.

        Raises:
            CheckpointError: the file is missing, damaged, or of another layout.
        """

    @final
    def fix(self, blocks: int) -> None:
        """Keep so many blocks, and what is before them, from learning; with all of its blocks, the whole of it."""
        whole = blocks >= len(self.blocks)
        for part in [self] if whole else [self.stem, *self.blocks[:blocks]] if blocks else []:
            part.requires_grad_(False)

    @final
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return means, then standard deviations of the channels of all stages, of an image in [0, 1]."""
        maps = self.stem(self.scaled(x))
        pooled: list[tuple[Tensor, Tensor]] = []
        for i, block in enumerate(self.blocks):
            maps = block(maps)
            if i in self.stages:
                pooled.append(mean_and_std(maps))
        pooled.append(mean_and_std(self.get_submodule(self.end)(maps)))
        return torch.cat([torch.cat(part, dim=1) for part in zip(*pooled, strict=True)], dim=1)


class BackboneScorer(Scorer, ABC):
    """A perceptron on the pooled features of a backbone; its sigmoid ends on a proven range.

    A saved metric holds both. Built by hand it is random: ``from_backbone`` reads the features from a file. No layer
    mixes the images of a batch.

    Args:
        hidden: units of the perceptron; 0 for a linear one.
        low, high: the range of the score, which it cannot leave.

    Raises:
        ImageError: images below 32 pixels a side, when called.
    """

    smallest = 32
    independent = True

    kind: ClassVar[type[Backbone]]

    def __init__(self, hidden: int = 0, low: float = 0.0, high: float = 100.0) -> None:
        super().__init__()
        self.low, self.high = low, high
        self._arguments = {"hidden": hidden, "low": low, "high": high}
        self.backbone = self.kind()
        self.head = ScoreHead(self.backbone.features, hidden, low, high)

    @classmethod
    def from_backbone(cls, path: Path, hidden: int = 0, low: float = 0.0, high: float = 100.0) -> BackboneScorer:
        """Build the metric with an untrained perceptron on the published features in a file.

        Raises:
            CheckpointError: the file is missing, damaged, or of another layout.
        """
        metric = cls(hidden, low, high)
        metric.backbone.read(path)
        return metric

    @final
    def arguments(self) -> dict[str, object]:
        return {"class": type(self).__name__, **self._arguments}

    @final
    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return the pooled features that the perceptron reads."""
        self.require_size(x)
        return self.backbone(x)

    @final
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.head(self.features(x))


def read_scorer(state: Weights) -> tuple[Arguments, Weights]:
    """Return the constructor's arguments that saved weights tell, and the weights as they are."""
    return read_head(state), state
