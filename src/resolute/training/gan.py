"""SRGAN's losses (Ledig et al., CVPR 2017): content on the features of a fixed network, and a discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resolute.attacks.features import layer_outputs
from resolute.errors import ConfigError
from resolute.models.discriminator import Discriminator
from resolute.models.quality import QualityNet
from resolute.models.scorers import load_scorer
from resolute.models.vgg import VGG19Features
from resolute.training.restore_recipe import GanTable

Images = Float[Tensor, "b 3 h w"]


@final
class GanLoss(nn.Module):
    """What SRGAN adds to, or puts in the place of, a distance of pixels.

    The generator's part is ``content_weight * content + weight * -log D(S(x))``, the discriminator's the usual cross
    entropy. Both are returned as one sum whose gradients do not mix: to the generator the discriminator is a constant,
    to the discriminator the generator's images are. One optimiser then steps both on the same batch, where the
    original steps them in turns.

    Args:
        table: weights, sizes and the fixed network.
        side: of the original patches, in pixels.

    Raises:
        ConfigError: the fixed network is not there, or is none whose features are known.
    """

    def __init__(self, table: GanTable, side: int) -> None:
        super().__init__()
        self.table = table
        self.discriminator = Discriminator(side, table.channels, table.hidden)
        # In a tuple, so that a fixed network is no part of checkpoints and is never put in training mode.
        self._content = (_content_network(table),)

    def forward(self, output: Images, high: Images) -> Float[Tensor, ""]:
        """Return the sum of the generator's and the discriminator's losses."""
        content = self._content[0].to(output.device)
        with torch.no_grad():
            wanted = _features(content, high)
        pairs = zip(_features(content, output), wanted, strict=True)
        distance = torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).mean()
        state = {**dict(self.discriminator.named_parameters()), **dict(self.discriminator.named_buffers())}
        constant = {name: tensor.detach().clone() for name, tensor in state.items()}
        fooled = functional_call(self.discriminator, constant, (output,))
        generator = self.table.content_weight * distance + self.table.weight * F.softplus(-fooled).mean()
        real, fake = self.discriminator(high), self.discriminator(output.detach())
        return generator + F.softplus(-real).mean() + F.softplus(fake).mean()


def _content_network(table: GanTable) -> VGG19Features | QualityNet:
    if table.content == "vgg19":
        if not table.backbone:
            raise ConfigError(
                "gan.content = 'vgg19' needs VGG19's weights, in PyTorch's own layout: give a file with --backbone, or "
                "name a quality metric such as quality-s, whose features then stand in for VGG's"
            )
        return VGG19Features.read(Path(table.backbone))
    scorer = load_scorer(table.content)
    if not isinstance(scorer, QualityNet):
        raise ConfigError(f"gan.content: {table.content} has no features that are known here; use quality-s or vgg19")
    return scorer.requires_grad_(False).eval()


def _features(content: VGG19Features | QualityNet, x: Images) -> list[Tensor]:
    if isinstance(content, VGG19Features):
        return [content(x)]
    return layer_outputs(content, x, [f"stages.{i}" for i in range(len(content.stages))])
