"""A quality metric on the features of a MobileNetV2 (Sandler et al., CVPR 2018) trained to classify ImageNet.

The layout is that of the Keras release with its batch norms folded in: 52 convolutions with bias, ReLU6, images on
[-1, 1], and stride-2 convolutions padded on the right and at the bottom only where the size is even.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError
from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.base import Scorer
from resolute.models.bottlenecks import PaddedConv, bottlenecks
from resolute.models.pooling import ScoreHead, mean_and_std, read_head
from resolute.models.weights import read_weights

# Table 2 of the paper, at width 1.0.
_GROUPS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip
_LAST = 1280

# The blocks after which the image is halved next, and the end: one pooling for each size.
_STAGES = (0, 2, 5, 12, 16)
FEATURES = 2 * (16 + 24 + 32 + 96 + _LAST)


@final
class MobileNetFeatures(nn.Module):
    """MobileNetV2 up to its last convolution; its parameter names are those of the int8 file that ``read`` expects.

    Example:
        >>> mean, std = MobileNetFeatures()(torch.rand(2, 3, 64, 50))
        >>> mean.shape, std.shape
        (torch.Size([2, 1448]), torch.Size([2, 1448]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = PaddedConv(3, 32, size=3, stride=2)
        self.blocks = bottlenecks(32, _GROUPS)
        self.head = PaddedConv(320, _LAST)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
        """Return means and standard deviations of the channels of five stages, of an image in [0, 1]."""
        maps = self.stem(2 * x - 1)
        pooled: list[tuple[Tensor, Tensor]] = []
        for i, block in enumerate(self.blocks):
            maps = block(maps)
            if i in _STAGES[:-1]:
                pooled.append(mean_and_std(maps))
        pooled.append(mean_and_std(self.head(maps)))
        means, stds = zip(*pooled, strict=True)
        return torch.cat(means, dim=1), torch.cat(stds, dim=1)

    def read(self, path: Path) -> None:
        """Load weights kept as int8 with one scale an output channel: ``weight_int8 * weight_scale``.

        Raises:
            CheckpointError: the file is missing, damaged, or no backbone of this layout.
        """
        packed, _ = read_weights(path)
        try:
            state = {
                name.removesuffix("_int8"): tensor.float() * packed[name.replace("_int8", "_scale")].view(-1, 1, 1, 1)
                if name.endswith("_int8")
                else tensor
                for name, tensor in packed.items()
                if not name.endswith("_scale")
            }
            self.load_state_dict(state, strict=True)
        except (RuntimeError, LookupError):
            raise CheckpointError(
                f"{path.name} is no int8 backbone of MobileNetV2 1.0 in the Keras layout (52 convolutions)"
            ) from None


@final
class MobileNetScorer(Scorer):
    """A perceptron on means and deviations of MobileNetV2 features; its sigmoid ends on a proven range.

    Only the perceptron learns, unless ``fine_tune``: then the backbone does too. A saved metric holds both. Built by
    hand the backbone is random: ``from_backbone`` reads it from a file.

    Args:
        hidden: units of the perceptron; 0 for a linear one.
        low, high: the range of the score.
        fine_tune: let the backbone train.

    Raises:
        ImageError: images below 32 pixels a side, when called.

    Example:
        >>> metric = MobileNetScorer(hidden=16)
        >>> sum(p.numel() for p in metric.parameters() if p.requires_grad)
        52161
        >>> metric(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2])
    """

    smallest = 32

    def __init__(self, hidden: int = 64, low: float = 0.0, high: float = 100.0, fine_tune: bool = False) -> None:
        super().__init__()
        self.low, self.high = low, high
        self._arguments = {"hidden": hidden, "low": low, "high": high, "fine_tune": fine_tune}
        self.backbone = MobileNetFeatures().requires_grad_(fine_tune)
        self.head = ScoreHead(FEATURES, hidden, low, high)

    @classmethod
    def from_backbone(
        cls, path: Path, hidden: int = 64, low: float = 0.0, high: float = 100.0, fine_tune: bool = False
    ) -> MobileNetScorer:
        """Build the metric with an untrained perceptron on the backbone in a file.

        Raises:
            CheckpointError: the file is missing, damaged, or no such backbone.
        """
        metric = cls(hidden, low, high, fine_tune)
        metric.backbone.read(path)
        return metric

    def arguments(self) -> dict[str, object]:
        return {"class": "MobileNetScorer", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return the pooled features that the perceptron reads: means, then standard deviations."""
        self.require_size(x)
        return torch.cat(self.backbone(x), dim=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.head(self.features(x))


def _read(state: Weights) -> tuple[Arguments, Weights]:
    return read_head(state), state


ARCHITECTURE = Architecture(
    name="mobilenet",
    network=MobileNetScorer,
    detects=holds("backbone.stem.conv.weight", "backbone.head.conv.weight", "head.range"),
    read=_read,
    first_layer="backbone.stem.conv",
)
