"""QualityNet: a small quality metric that a CPU scores thousands of noisy images with."""

from __future__ import annotations

import itertools
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.base import Scorer
from resolute.models.blocks import count
from resolute.models.pooling import ScoreHead, mean_and_std, read_head

PATCH = 4


@final
class Block(nn.Module):
    """``x + project(relu(conv(x)))`` with a 3x3 and a 1x1 convolution; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.project = nn.Conv2d(channels, channels, kernel_size=1)
        nn.init.zeros_(self.project.weight)
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.project(F.relu(self.conv(x)))


@final
class QualityNet(Scorer):
    """A convolutional quality metric of 0.3 million weights; ``quality-s`` is this with the default sizes.

    Patches of 4 x 4 pixels, then stages of residual blocks, each at half the size of the one before. The mean and the
    logarithm of the standard deviation of every channel after every stage go to a small perceptron, whose sigmoid ends
    on a proven range. No layer mixes the images of a batch, so an image scores the same in any company, up to the last
    bits, which a matrix product rounds otherwise for another batch size.

    Args:
        widths: channels of each stage.
        blocks: residual blocks of each stage.
        hidden: units of the perceptron.
        low, high: the range of the score; the default is that of mean opinion scores.

    Raises:
        ImageError: images below 32 pixels a side, when called.

    Example:
        >>> metric = QualityNet()
        >>> sum(p.numel() for p in metric.parameters())
        297233
        >>> metric(torch.rand(2, 3, 50, 33)).shape
        torch.Size([2])
    """

    smallest = 32
    independent = True

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 48, 64, 96),
        blocks: int = 1,
        hidden: int = 64,
        low: float = 0.0,
        high: float = 100.0,
    ) -> None:
        if not widths or min(widths) < 1 or blocks < 0 or hidden < 0:
            raise ValueError(f"widths are positive, blocks and hidden not negative; not {widths}, {blocks}, {hidden}")
        super().__init__()
        self.low, self.high = low, high
        self._arguments = {"widths": widths, "blocks": blocks, "hidden": hidden, "low": low, "high": high}
        self.stem = nn.Conv2d(3, widths[0], kernel_size=PATCH, stride=PATCH)
        # Mid-grey starts at zero, as if the input were centred, which would cost a pass over the whole image. Without
        # memory there is nothing to start, and arithmetic there makes torch import its compiler for two seconds.
        if not self.stem.weight.is_meta:
            assert self.stem.bias is not None
            with torch.no_grad():
                self.stem.bias.copy_(-self.stem.weight.sum(dim=(1, 2, 3)) / 2)
        self.stages = nn.ModuleList(nn.Sequential(*(Block(width) for _ in range(blocks))) for width in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(fine, coarse, kernel_size=3, stride=2, padding=1) for fine, coarse in itertools.pairwise(widths)
        )
        self.head = ScoreHead(2 * sum(widths), hidden, low, high)

    def arguments(self) -> dict[str, object]:
        return {"class": "QualityNet", **self._arguments}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        self.require_size(x)
        height, width = x.shape[-2:]
        # A traced network has one way for all sizes.
        if torch.compiler.is_compiling() or width % PATCH or height % PATCH:
            x = F.pad(x, (0, -width % PATCH, 0, -height % PATCH), mode="replicate")
        maps = F.relu(self.stem(x))
        pooled: list[Tensor] = []
        for i, stage in enumerate(self.stages):
            maps = stage(maps if i == 0 else F.relu(self.downs[i - 1](maps)))
            mean, std = mean_and_std(maps)
            # Noise and blur scale the deviations; in logarithms that is a shift, which a perceptron learns sooner.
            pooled += [mean, std.log()]
        return self.head(torch.cat(pooled, dim=1))


def _read(state: Weights) -> tuple[Arguments, Weights]:
    downs = count(state, r"downs\.\d+\.weight")
    arguments: Arguments = {
        "widths": (state["stem.weight"].shape[0], *(state[f"downs.{i}.weight"].shape[0] for i in range(downs))),
        "blocks": count(state, r"stages\.0\.\d+\.conv\.weight"),
        **read_head(state),
    }
    return arguments, state


ARCHITECTURE = Architecture(
    name="quality",
    network=QualityNet,
    detects=holds("stem.weight", "head.range", "head.score.weight"),
    read=_read,
    first_layer="stem",
)
