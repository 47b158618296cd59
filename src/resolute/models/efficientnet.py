"""A quality metric on an EfficientNet-Lite0, of Tan and Le (ICML 2019), that was first trained to classify ImageNet.

Lite0 is B0 without squeeze and excitation and with ReLU6 in place of swish, so that small processors run it. Here its
batch norms are folded into the convolutions, and its images are ``(255 x - 127) / 128``.
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

# Table 1 of the paper.
_GROUPS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
_LAST = 1280
_NORM_FLOOR = 1e-3

# The blocks after which the image is halved next, and the end: one pooling for each size.
_STAGES = (0, 2, 4, 10)
FEATURES = 2 * (16 + 24 + 40 + 112 + _LAST)


@final
class EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 up to its last convolution, without norms.

    Example:
        >>> EfficientNetFeatures()(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2, 2944])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = PaddedConv(3, 32, size=3, stride=2)
        self.blocks = bottlenecks(32, _GROUPS)
        self.last = PaddedConv(320, _LAST)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return means and logarithms of standard deviations of the channels of five stages, of an image in [0, 1]."""
        maps = self.stem((255 * x - 127) / 128)
        pooled: list[Tensor] = []
        for i, block in enumerate((*self.blocks, self.last)):
            maps = block(maps)
            if i in _STAGES or block is self.last:
                mean, std = mean_and_std(maps)
                # As in ``QualityNet``: noise and blur shift the logarithms.
                pooled += [mean, std.log()]
        return torch.cat(pooled, dim=1)

    def read(self, path: Path) -> None:
        """Load a classifier of ImageNet with batch norms, in the layout of the PyTorch port, and fold them.

        Raises:
            CheckpointError: the file is missing, damaged, or no classifier of this layout.
        """
        packed, _ = read_weights(path)
        try:
            state = {
                f"{ours}.conv.{name}": tensor
                for ours, conv, norm in _layout(self)
                for name, tensor in _folded(packed, conv, norm).items()
            }
            self.load_state_dict(state, strict=True)
        except (RuntimeError, LookupError):
            raise CheckpointError(
                f"{path.name} is no EfficientNet-Lite0 with batch norms in the PyTorch layout (49 convolutions)"
            ) from None


def _layout(network: EfficientNetFeatures) -> list[tuple[str, str, str]]:
    """Return what each convolution is called here and in the port, and what its norm is called there."""
    layout = [("stem", "_conv_stem", "_bn0"), ("last", "_conv_head", "_bn1")]
    three = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for i, block in enumerate(network.blocks):
        convs = len(block.c)  # pyright: ignore[reportArgumentType], a gap in torch's stubs
        layout += [
            (f"blocks.{i}.c.{j}", f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}")
            for j, (conv, norm) in enumerate(three[-convs:])
        ]
    return layout


def _folded(state: Weights, conv: str, norm: str) -> dict[str, Tensor]:
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _NORM_FLOOR).sqrt()
    return {
        "weight": state[f"{conv}.weight"] * gain.view(-1, 1, 1, 1),
        "bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain,
    }


@final
class EfficientNetScorer(Scorer):
    """A perceptron on pooled EfficientNet-Lite0 features, all of which learns; ``quality-m`` is this with a linear one.

    A saved metric holds all of it. Built by hand it is random: ``from_backbone`` reads the features from a file. No
    layer mixes the images of a batch.

    Args:
        hidden: units of the perceptron; 0 for a linear one.
        low, high: the range of the score, which it cannot leave.

    Raises:
        ImageError: images below 32 pixels a side, when called.

    Example:
        >>> metric = EfficientNetScorer()
        >>> sum(p.numel() for p in metric.parameters())
        3358833
        >>> metric(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2])
    """

    smallest = 32

    def __init__(self, hidden: int = 0, low: float = 0.0, high: float = 100.0) -> None:
        super().__init__()
        self.low, self.high = low, high
        self._arguments = {"hidden": hidden, "low": low, "high": high}
        self.backbone = EfficientNetFeatures()
        self.head = ScoreHead(FEATURES, hidden, low, high)

    @classmethod
    def from_backbone(cls, path: Path, hidden: int = 0, low: float = 0.0, high: float = 100.0) -> EfficientNetScorer:
        """Build the metric with an untrained perceptron on the classifier of ImageNet in a file.

        Raises:
            CheckpointError: the file is missing, damaged, or no such classifier.
        """
        metric = cls(hidden, low, high)
        metric.backbone.read(path)
        return metric

    def arguments(self) -> dict[str, object]:
        return {"class": "EfficientNetScorer", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return the pooled features that the perceptron reads."""
        self.require_size(x)
        return self.backbone(x)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return self.head(self.features(x))


def _read(state: Weights) -> tuple[Arguments, Weights]:
    return read_head(state), state


ARCHITECTURE = Architecture(
    name="efficientnet",
    network=EfficientNetScorer,
    detects=holds("backbone.stem.conv.weight", "backbone.last.conv.weight", "head.range"),
    read=_read,
    first_layer="backbone.stem.conv",
)
