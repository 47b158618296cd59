"""Names and shapes of released checkpoints, and networks written out from their equations, for the tests of models."""

import torch
from torch.nn import functional as F


class Layout(dict):
    """Shapes by name."""

    def conv(self, name, outputs, inputs, size=3):
        self[f"{name}.weight"] = (outputs, inputs, size, size)
        self[f"{name}.bias"] = (outputs,)

    def entry(self, channels):
        """What EDSR begins with, and all that are built on it: mean shifts and the first convolution."""
        self.conv("sub_mean", 3, 3, 1)
        self.conv("add_mean", 3, 3, 1)
        self.conv("head.0", channels, 3)

    def upsampler(self, name, scale, channels):
        for stage, factor in enumerate(stages(scale)):
            self.conv(f"{name}.{2 * stage}", factor**2 * channels, channels)

    def random(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in self.items()}
        if "sub_mean.bias" in state:
            # Tells that white is 255.
            state["sub_mean.bias"] -= 100
        return state


def stages(scale):
    return (2, 2) if scale == 4 else (scale,)


def conv_of(state):
    """The convolutions of a state by name, of stride 1 and with padding that keeps the size."""

    def conv(name, value):
        weight = state[f"{name}.weight"]
        return F.conv2d(value, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    return conv


def upsampled(conv, name, scale, h):
    for stage, factor in enumerate(stages(scale)):
        h = F.pixel_shuffle(conv(f"{name}.{2 * stage}", h), factor)
    return h


# Of EfficientNet-B0, by row of table 1: expansion, channels out, layers, stride, kernel.
TABLE_1_OF_EFFICIENTNET = [
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
]  # fmt: skip


def imagenet_classifier():
    """Return random weights of EfficientNet-Lite0 by the names of its PyTorch port, norms and all."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def add(conv, norm, outputs, inputs, kernel=1):
        scale = 2 / (inputs * kernel**2) ** 0.5
        state[f"{conv}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(outputs, generator=generator)
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(outputs, generator=generator) / 4
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels, number = 32, 0
    for expansion, outputs, layers, _, kernel in TABLE_1_OF_EFFICIENTNET:
        for _ in range(layers):
            block, width = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", width, channels)
            add(f"{block}._depthwise_conv", f"{block}._bn1", width, 1, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", outputs, width)
            channels, number = outputs, number + 1
    add("_conv_head", "_bn1", 1280, 320)
    return state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
