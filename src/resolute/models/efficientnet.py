"""A quality metric on an EfficientNet-Lite0, of Tan and Le (ICML 2019), that was first trained to classify ImageNet.

Lite0 is B0 without squeeze and excitation and with ReLU6 in place of swish, so that small processors run it. Here its
batch norms are folded into the convolutions, and its images are ``(255 x - 127) / 128``.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError
from resolute.models.architecture import Architecture, Weights, holds
from resolute.models.backbone import Backbone, BackboneScorer, read_scorer
from resolute.models.weights import read_weights

_NORM_FLOOR = 1e-3


@final
class EfficientNetFeatures(Backbone):
    """EfficientNet-Lite0 up to its last convolution, without norms.

    Example:
        >>> import torch
        >>> EfficientNetFeatures()(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2, 2944])
    """

    # Table 1 of the paper.
    groups = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )  # fmt: skip
    stages = (0, 2, 4, 10)

    def scaled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (255 * x - 127) / 128

    def read(self, path: Path) -> None:
        """Load a classifier of ImageNet with batch norms, in the layout of the PyTorch port, and fold them."""
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
class EfficientNetScorer(BackboneScorer):
    """A perceptron on pooled EfficientNet-Lite0 features; ``quality-m`` is this with a linear one.

    Example:
        >>> import torch
        >>> metric = EfficientNetScorer()
        >>> sum(p.numel() for p in metric.parameters())
        3358833
        >>> metric(torch.rand(2, 3, 64, 50)).shape
        torch.Size([2])
    """

    kind = EfficientNetFeatures


ARCHITECTURE = Architecture(
    name="efficientnet",
    network=EfficientNetScorer,
    detects=holds("backbone.stem.conv.weight", "backbone.last.conv.weight", "head.range"),
    read=read_scorer,
    first_layer="backbone.stem.conv",
)
