"""All architectures whose checkpoints are recognised and which recipes train: the one place that lists them."""

from __future__ import annotations

from resolute.models import carn, denoisers, edsr, efficientnet, mobilenet, msrn, quality, rcan, srresnet
from resolute.models.architecture import Architecture
from resolute.models.base import Restorer, Scorer

# Weights are detected by one of them at most.
RESTORERS: tuple[Architecture[Restorer], ...] = (
    edsr.ARCHITECTURE, rcan.ARCHITECTURE, msrn.ARCHITECTURE, carn.ARCHITECTURE, srresnet.ARCHITECTURE,
    denoisers.UNET, denoisers.DNCNN,
)  # fmt: skip
SCORERS: tuple[Architecture[Scorer], ...] = (
    quality.ARCHITECTURE, mobilenet.ARCHITECTURE, efficientnet.ARCHITECTURE,
)  # fmt: skip
