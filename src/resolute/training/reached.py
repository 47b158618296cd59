"""Which weights of a network training reaches, and what has to be done so that it reaches more of them.

Networks come as their authors use them: with weights that a constructor froze because they had been merged from
branches, or with branches that only run in training mode and are merged anew whenever the network is used.
"""

from __future__ import annotations

import dataclasses
import math
from typing import final

from torch import Tensor, nn

from resolute.images import sample_image
from resolute.models.base import Restorer, device_of

# Of all weights; what lies beyond are constants, such as the shift by a mean colour.
_ENOUGH = 0.9
# That another way has to reach more, and how near its output has to be to that in use.
_MORE, _SAME = 0.05, 1e-4


@final
@dataclasses.dataclass(frozen=True)
class Reach:
    """How a network is trained.

    Attributes:
        branches: in training mode but for normalisation and dropout, which stay as in use.
        unfrozen: frozen weights too.
        share: of its weights that are trained, from 0 to 1.
    """

    branches: bool
    unfrozen: bool
    share: float


def reach_of(model: Restorer, unfreeze: bool) -> Reach:
    """Find the plainest way of training that reaches the weights of a model; it is left as it was.

    Args:
        model: in evaluation mode.
        unfreeze: whether frozen weights may be trained: as in a file, not where a caller has frozen them.
    """
    x = sample_image("coffee")[None, :, 100:132, 100:132].to(device_of(model))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    best, expected = Reach(False, False, 0.0), None
    try:
        for branches, unfrozen in ((False, False), (True, False), (False, True), (True, True)):
            if (unfrozen and not unfreeze) or best.share > _ENOUGH:
                continue
            for parameter, needed in gradients.items():
                parameter.requires_grad_((needed or unfrozen) and parameter.is_floating_point())
            in_use(model, branches)
            found = _passed(model, x)
            if found is None:
                continue
            share, output = found
            expected = output if expected is None else expected
            if share > best.share + _MORE and _alike(output, expected):
                best = Reach(branches, unfrozen, share)
    finally:
        model.eval()
        model.load_state_dict(before)
        for parameter, needed in gradients.items():
            parameter.requires_grad_(needed)
            parameter.grad = None
    return best


def in_use(model: nn.Module, branches: bool) -> None:
    """Put a model in evaluation mode, or in training mode but for normalisation and dropout."""
    model.train(branches)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):  # pyright: ignore[reportPrivateUsage], their common classes
            module.eval()


def _passed(model: Restorer, x: Tensor) -> tuple[float, Tensor] | None:
    """Return the share of weights that a gradient reaches, and the output; None where the model cannot run so."""
    model.zero_grad(set_to_none=True)
    try:
        output = model(x)
        output.float().square().sum().backward()
        again = model(x).detach()
    except Exception:  # Code of somebody else can raise anything.
        return None
    if not _alike(again, output.detach()):
        return None
    weights = [(parameter.numel(), parameter.grad) for parameter in model.parameters()]
    reached = sum(size for size, gradient in weights if gradient is not None and bool((gradient != 0).any()))
    return reached / max(1, sum(size for size, _ in weights)), output.detach()


def _alike(output: Tensor, expected: Tensor) -> bool:
    if output.shape != expected.shape or not bool(output.isfinite().all()):
        return False
    return float((output - expected).abs().max()) <= _SAME * max(1.0, float(expected.abs().max())) < math.inf
