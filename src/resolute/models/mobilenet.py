"""A quality metric on the features of a MobileNetV2 (Sandler et al., CVPR 2018) trained to classify ImageNet.

The layout is that of the Keras release with its batch norms folded in: 52 convolutions with bias, ReLU6, images on
[-1, 1], and stride-2 convolutions padded on the right and at the bottom only where the size is even.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError
from resolute.models.architecture import Architecture, holds
from resolute.models.backbone import Backbone, BackboneScorer, read_scorer
from resolute.models.weights import read_weights


@final
class MobileNetFeatures(Backbone):
    """MobileNetV2 up to its last convolution; its parameter names are those of the int8 file that ``read`` expects.

    Example:
        >>> import torch
        >>> MobileNetFeatures()(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2, 2896])
    """

    # Table 2 of the paper, at width 1.0.
    groups = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    )  # fmt: skip
    stages = (0, 2, 5, 12)
    end = "head"

    def scaled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return 2 * x - 1

    def read(self, path: Path) -> None:
        """Load weights kept as int8 with one scale an output channel: ``weight_int8 * weight_scale``."""
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
class MobileNetScorer(BackboneScorer):
    """A perceptron on pooled MobileNetV2 features; the recipe ``quality-mobilenet`` trains the perceptron alone.

    Example:
        >>> import torch
        >>> metric = MobileNetScorer(hidden=16)
        >>> sum(p.numel() for p in metric.head.parameters())
        52161
        >>> metric(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2])
    """

    kind = MobileNetFeatures


ARCHITECTURE = Architecture(
    name="mobilenet",
    network=MobileNetScorer,
    detects=holds("backbone.stem.conv.weight", "backbone.head.conv.weight", "head.range"),
    read=read_scorer,
    first_layer="backbone.stem.conv",
)
