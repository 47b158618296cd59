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
