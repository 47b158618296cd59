"""The recipe of a super-resolution model: network, data, loss, and what hardens it while it trains."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.defences.adversarial import Adversarial
from resolute.defences.consistency import Consistency
from resolute.defences.entropy import Entropy
from resolute.defences.jacobian import Jacobian
from resolute.defences.jitter import Jitter
from resolute.errors import ConfigError
from resolute.training.networks import UPSCALERS, AnyUpscaler
from resolute.training.tables import STRICT, OptimizerTable, RunTable


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataTable:
    """How batches are cut from a folder of images.

    Attributes:
        patch: side of a low-resolution patch, in pixels.
        batch: patches a step, over all devices together.
        validation: images held out of training, spread evenly over the sorted folder, for the validation PSNR.
        licence: terms of the images, written into the model card.
    """

    patch: int = pydantic.Field(default=48, ge=8)
    batch: int = pydantic.Field(default=16, ge=1)
    validation: int = pydantic.Field(default=10, ge=0)
    licence: str = "not stated"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossTable:
    """The distance of the output from the original, on the scale that the network's authors trained on.

    λ of eq. 2 weighs bits against this loss, so it depends on the scale: L1 on [0, 255] is 255 times L1 on [0, 1].

    Attributes:
        kind: ``l1`` or ``mse``.
        scale: ``255`` for [0, 255], ``tanh`` for [-1, 1].
        bit_weight: the paper's λ for this loss (section 4.1); ``defence.weight`` counts in it, so that 1 is the paper's
            choice for every network.
    """

    kind: Literal["l1", "mse"] = "l1"
    scale: Literal["255", "tanh"] = "255"
    bit_weight: float = pydantic.Field(default=1.0, gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MethodTables:
    """What hardens a model while it trains; whatever is not None takes part, and all combine.

    Attributes:
        defence: the entropy regulariser.
        adversarial: attacked patches.
        jitter: noise on the input.
        consistency: a penalty on the difference from the output for the worst neighbour.
        jacobian: a penalty on the Jacobian.
        own: methods of one's own, each a table whose key ``method`` is ``FILE.py:NAME`` and whose other keys are the
            class's fields; see ``defences.method``.
    """

    defence: Entropy | None = None
    adversarial: Adversarial | None = None
    jitter: Jitter | None = None
    consistency: Consistency | None = None
    jacobian: Jacobian | None = None
    own: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.jacobian is not None and self.defence is not None and self.defence.noise:
            raise ConfigError("jacobian: noise on the features drowns its differences; set defence.noise = false")
        if self.adversarial is not None and self.jitter is not None and self.jitter.copies > 1:
            raise ConfigError("jitter.copies: attacked patches beside clean ones have none; leave out adversarial")

    @property
    def replay(self) -> int:
        """How many steps in a row train on one batch."""
        return self.adversarial.replay if self.adversarial else 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GanTable:
    """SRGAN (Ledig et al., CVPR 2017): content loss on the features of a fixed network, and a discriminator.

    The original steps discriminator and generator in turns; here both step on the same batch.

    Attributes:
        content: ``vgg19``, the published network, whose weights come from ``backbone``; or the name or file of a
            quality metric whose features stand in for them.
        backbone: file of VGG19's weights in PyTorch's own layout, for ``vgg19``.
        content_weight: of the content loss; for ``vgg19`` it is an MSE over features scaled by 1/12.75.
        pixel_weight: of the recipe's own loss on pixels; 0 in the original.
        weight: of the adversarial loss, 1e-3 in the original.
        channels: width of the discriminator, 64 in the original.
        hidden: units of its last layer but one, 1024 in the original.
    """

    content: str = "vgg19"
    backbone: str = ""
    content_weight: float = pydantic.Field(default=1.0, ge=0)
    pixel_weight: float = pydantic.Field(default=0.0, ge=0)
    weight: float = pydantic.Field(default=1e-3, ge=0)
    channels: int = pydantic.Field(default=64, ge=1)
    hidden: int = pydantic.Field(default=1024, ge=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe(RunTable, MethodTables):
    """The training of a super-resolution model. With ``start`` the density of a regularised run comes along.

    Attributes:
        gan: SRGAN's losses, or None.

    Example:
        >>> from resolute.training import read_recipe
        >>> recipe = read_recipe("edsr-s-entropy")
        >>> recipe.model.scale, recipe.defence is not None
        (4, True)
    """

    model: AnyUpscaler = dataclasses.field(default_factory=UPSCALERS["edsr"])
    data: DataTable = dataclasses.field(default_factory=DataTable)
    loss: LossTable = dataclasses.field(default_factory=LossTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    gan: GanTable | None = None
