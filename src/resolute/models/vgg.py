"""VGG19 up to φ5,4 (Simonyan and Zisserman, ICLR 2015), in whose features SRGAN measures its content loss."""

from __future__ import annotations

from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError
from resolute.models.blocks import ImageNetNormalize, conv3x3
from resolute.models.weights import misfit, read_weights

# Convolutions before each of the five poolings, and their width.
_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))

# Ledig et al. scale the features so that their squared error is on the scale of that of pixels.
_SCALE = 1 / 12.75


@final
class VGG19Features(nn.Module):
    """The features φ5,4 of VGG19: after the last ReLU, before the fifth pooling, scaled by 1/12.75.

    The network is frozen, has no classifier, and normalises images in [0, 1] inside. ``read`` fills it with weights;
    untrained it is good for tests alone. The submodule ``scaled`` returns what the network returns.

    Example:
        >>> import torch
        >>> VGG19Features()(torch.rand(1, 3, 32, 48)).shape
        torch.Size([1, 512, 2, 3])
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = ImageNetNormalize()
        layers: list[nn.Module] = []
        inputs = 3
        for stage, (convolutions, outputs) in enumerate(_STAGES):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                layers += [conv3x3(inputs, outputs), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.scaled = nn.Identity()
        self.requires_grad_(False)

    @classmethod
    def read(cls, path: Path) -> VGG19Features:
        """Read the weights from a state dict in PyTorch's own layout, ``vgg19-dcbb9e9d.pth``; leave the classifier out.

        The weights are the user's: they are no part of this package.

        Raises:
            CheckpointError: the file is missing, damaged, hostile, not finite or something else.
        """
        state, _ = read_weights(path)
        convolutions = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
        if not convolutions:
            raise CheckpointError(f"{path.name} holds no VGG19; give PyTorch's vgg19-dcbb9e9d.pth or its like")
        network = cls()
        try:
            network.load_state_dict(convolutions, strict=True)
        except RuntimeError as error:
            raise misfit(path.name, "VGG19", error) from None
        return network.eval()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 512 h1 w1"]:
        return self.scaled(_SCALE * self.features(self.normalize(x)))
