"""Denoisers: a U-Net that two cores run a thousand times an image, and DnCNN (Zhang et al., IEEE TIP 2017)."""

from __future__ import annotations

import itertools
import re
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.base import SplitRestorer
from resolute.models.blocks import conv3x3, count


@final
class Level(nn.Module):
    """Two 3x3 convolutions, each with a ReLU after it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv3x3(inputs, outputs)
        self.second = conv3x3(outputs, outputs)
        _keep_signal(self.first)
        _keep_signal(self.second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c1 h w"]:
        return F.relu(self.second(F.relu(self.first(x))))


@final
class UNet(SplitRestorer):
    """A U-Net that predicts the noise: ``x - net(x)``, without any normalisation, for images of any size.

    Blocks of 2 x 2 pixels become channels first, which makes it four times cheaper than at full size, and pixels again
    at the end. No layer mixes the images of a batch, so a certificate that rests on it speaks of one image alone. The
    last convolution starts at zero, so an untrained one returns its input. The feature layer Φ is what enters the last
    convolution: the image itself, then the last hidden maps.

    Args:
        widths: channels at each scale, finest first, each scale half the size of the one before; the first a multiple
            of 4.

    Example:
        >>> denoiser = UNet()
        >>> x = torch.rand(1, 3, 45, 30)
        >>> torch.equal(denoiser(x), x)
        True
    """

    feature_layer = "joint"

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        if len(widths) < 2 or min(widths) < 1 or widths[0] % 4:
            raise ValueError(f"a U-Net has two widths or more, positive, the first a multiple of 4, not {widths}")
        super().__init__(scale=1)
        self.widths = widths
        self.down = nn.ModuleList(Level(inputs, outputs) for inputs, outputs in itertools.pairwise((12, *widths)))
        self.up = nn.ModuleList(Level(fine + coarse, fine) for fine, coarse in itertools.pairwise(widths))
        self.joint = nn.Identity()
        self.last = conv3x3(3 + widths[0] // 4, 3)
        _zero(self.last)

    def arguments(self) -> dict[str, object]:
        return {"class": "UNet", "widths": self.widths}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        maps = F.pixel_unshuffle(_pad(x, 2 ** len(self.widths)), 2)
        skips: list[Tensor] = []
        for i, level in enumerate(self.down):
            maps = level(F.max_pool2d(maps, 2) if i else maps)
            skips.append(maps)
        maps = skips.pop()
        for level in reversed(self.up):
            larger = F.interpolate(maps, scale_factor=2, mode="nearest")
            maps = level(torch.cat([skips.pop(), larger], dim=1))
        return self.joint(torch.cat([x, _crop(F.pixel_shuffle(maps, 2), x)], dim=1))

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        return phi[:, :3] - self.last(phi)


@final
class DnCNN(SplitRestorer):
    """DnCNN that predicts the noise: ``x - net(x)``, its batch normalisations folded into the convolutions.

    Parameter names are those of KAIR's releases; its colour checkpoints under the names ``conv0`` to ``conv19`` are
    recognised as well. The feature layer Φ is what enters the last convolution: the image itself,
    then the last hidden maps.

    Args:
        depth: convolutions; 17 as published, 20 in the blind and the colour versions.
        channels: width; 64 as published.

    Example:
        >>> sum(p.numel() for p in DnCNN(depth=20).parameters())
        668227
        >>> DnCNN(depth=3, channels=4)(torch.rand(2, 3, 5, 7)).shape
        torch.Size([2, 3, 5, 7])
    """

    feature_layer = "joint"

    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        if depth < 2 or channels < 1:
            raise ValueError(f"DnCNN has two convolutions or more and one channel or more, not {depth} and {channels}")
        super().__init__(scale=1)
        self._arguments = {"depth": depth, "channels": channels}
        layers: list[nn.Module] = [conv3x3(3, channels), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [conv3x3(channels, channels), nn.ReLU()]
        self.model = nn.Sequential(*layers, conv3x3(channels, 3))
        self.joint = nn.Identity()
        for layer in self.model:
            if isinstance(layer, nn.Conv2d):
                _keep_signal(layer)
        _zero(self.model[-1])

    def arguments(self) -> dict[str, object]:
        return {"class": "DnCNN", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.joint(torch.cat([x, self.model[:-1](x)], dim=1))

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        return phi[:, :3] - self.model[-1](phi[:, 3:])


def _read_unet(state: Weights) -> tuple[Arguments, Weights]:
    levels = count(state, r"down\.\d+\.first\.weight")
    return {"widths": tuple(state[f"down.{i}.first.weight"].shape[0] for i in range(levels))}, state


def _is_dncnn(state: Weights) -> bool:
    """Tell whether ``state`` is a row of convolutions and nothing else, from three channels on."""
    first = _numbered(state).get("model.0.weight")
    return first is not None and first.ndim == 4 and first.shape[1] == 3 and len(state) >= 4


def _read_dncnn(state: Weights) -> tuple[Arguments, Weights]:
    numbered = _numbered(state)
    return {"depth": len(numbered) // 2, "channels": numbered["model.0.weight"].shape[0]}, numbered


def _numbered(state: Weights) -> dict[str, Tensor]:
    """Return ``state`` under KAIR's names, ReLUs counted; empty if it holds anything but numbered convolutions."""
    numbered: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(model\.|conv)(\d+)\.(weight|bias)", name)
        if match is None:
            return {}
        place = int(match[2]) * (2 if match[1] == "conv" else 1)
        numbered[f"model.{place}.{match[3]}"] = tensor
    return numbered


def _keep_signal(layer: nn.Conv2d) -> None:
    if layer.weight.is_meta:  # drawing nothing takes 25 ms
        return
    # He's initialisation: the default one would fade the signal, and without normalisation nothing brings it back.
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Mirror the image beyond right and bottom edge up to a multiple of pixels; images too small for it repeat them."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    mode = "reflect" if bottom < height and right < width else "replicate"
    # A traced network has one way for all sizes.
    needed = torch.compiler.is_compiling() or bottom or right
    return F.pad(x, (0, right, 0, bottom), mode=mode) if needed else x


def _crop(x: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    if torch.compiler.is_compiling():
        # A slice would be traced for sizes that need one, and no others.
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
    return x[..., :height, :width]


UNET = Architecture(
    name="unet",
    network=UNet,
    detects=holds("down.0.first.weight", "up.0.first.weight", "last.weight"),
    read=_read_unet,
    first_layer="down.0.first",
)
DNCNN = Architecture(name="dncnn", network=DnCNN, detects=_is_dncnn, read=_read_dncnn, first_layer="model.0")
