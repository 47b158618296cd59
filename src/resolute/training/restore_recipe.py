"""The recipe of a super-resolution model: network, data, loss, and what hardens it while it trains."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

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
class DefenceTable:
    """The entropy regulariser; see ``EntropyRegularizer`` for all but the attributes below.

    Attributes:
        layer: name or pattern of the one layer it attaches to; empty for the model's own feature layer, ``first`` for
            its first convolution (section 5.4).
        weight: λ of eq. 2, in units of ``loss.bit_weight``.
        rate: learning rate of the density, as a multiple of the model's.
    """

    kind: Literal["entropy"] = "entropy"
    layer: str = ""
    weight: float = pydantic.Field(default=1.0, ge=0)
    delta: float = pydantic.Field(default=1.0, gt=0)
    noise: bool = True
    bits_at: Literal["noisy", "clean"] = "noisy"
    widths: tuple[int, ...] = (3, 3, 3)
    init_scale: float = pydantic.Field(default=10.0, gt=0)
    rate: float = pydantic.Field(default=1.0, gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdversarialTable:
    """Adversarial training; see ``defences.adversarial``. The defaults are the paper's (section 5.6).

    Attributes:
        level: largest change of a pixel, in levels of 255.
        steps: of the attack on the patches.
        relative_step: length of a step as a share of ``level``; None for ``1 / steps``.
        start: at the ``clean`` patch, or at a ``uniform`` random point of the ball.
        reference: attack the distance from the ``truth``, or from the model's own clean output (``self``).
        share: of the patches of a batch that are attacked while the others stay clean; 0, as in the paper, to train on
            every patch twice, once clean and once attacked.
        combine: of the losses of clean and attacked patches, the ``mean`` or the ``sum``.
    """

    level: float = pydantic.Field(default=8.0, gt=0, le=255)
    steps: int = pydantic.Field(default=1, ge=1)
    relative_step: float | None = pydantic.Field(default=None, gt=0, le=2)
    start: Literal["clean", "uniform"] = "clean"
    reference: Literal["truth", "self"] = "truth"
    share: float = pydantic.Field(default=0.0, ge=0, le=1)
    combine: Literal["mean", "sum"] = "mean"

    def clean(self, batch: int) -> int:
        """Return how many patches of a batch stay clean: all of them, where every patch is trained on twice."""
        return batch - max(1, round(self.share * batch)) if self.share else batch


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JitterTable:
    """Gaussian noise on the input while training, towards the clean original: the plainest way to smooth a model.

    Attributes:
        level: its standard deviation, in levels of 255.
    """

    level: float = pydantic.Field(default=4.0, gt=0, le=255)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JacobianTable:
    """A penalty on the squared norm of the model's Jacobian; see ``defences.jacobian``.

    Attributes:
        weight: of the penalty, per unit of the loss on its own scale.
        level: length of the finite differences, in levels of 255.
    """

    weight: float = pydantic.Field(default=1.0, gt=0)
    level: float = pydantic.Field(default=1.0, gt=0, le=255)


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
class Recipe(RunTable):
    """The training of a super-resolution model. With ``start`` the density of a regularised run comes along.

    Attributes:
        defence: the entropy regulariser, or None.
        adversarial, jitter, jacobian: other ways to harden the model, or None; they combine with one another.
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
    defence: DefenceTable | None = None
    adversarial: AdversarialTable | None = None
    jitter: JitterTable | None = None
    jacobian: JacobianTable | None = None
    gan: GanTable | None = None

    def __post_init__(self) -> None:
        if self.jacobian is not None and self.defence is not None and self.defence.noise:
            raise ConfigError("jacobian: noise on the features drowns its differences; set defence.noise = false")
