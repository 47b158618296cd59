"""How many forward passes' worth of arithmetic an attack step takes, counted and not timed.

    python benchmarks/attack_flops.py [MODELS...] [--steps 50]

MODELS are names or weights files of scale 4; ``edsr-s`` by default. Counted are the multiplications and additions of
all convolutions and matrix products, by torch's own counter. An attack of n + 1 steps less one of n is one step. The
plain loop is the one that is written first: live parameters and ``backward()``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resolute import IFGSM, OutputShift, Restorer, load
from resolute.attacks.objective import Objective
from resolute.models.base import frozen

EPSILON = 4 / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["edsr-s"])
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for name in arguments.models:
        model = load(name, scale=4).requires_grad_(True)
        with frozen(model):
            forward = operations(lambda model=model: model(x))
        steps = arguments.steps
        whole = attack_operations(model, x, steps)
        print(f"{Path(name).stem}: {forward / x[0, 0].numel() / 2e3:.1f} kMAC a low-resolution pixel and forward pass")
        print(f"  a step of resolute's I-FGSM   {step_in_forwards(model, x):.4f} forward passes")
        if any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules()):
            print("  plain loop: not counted, for torch overstates the weights' gradients of grouped convolutions")
        else:
            print(f"  a step of the plain loop      {plain_step_in_forwards(model, x):.4f} forward passes")
        print(f"  an attack of {steps} steps, with its reference and verdicts: {whole / forward / steps:.4f} a step")


def step_in_forwards(model: Restorer, x: torch.Tensor) -> float:
    """Return what one step of ours costs, in forward passes."""
    with frozen(model):
        return (attack_operations(model, x, 2) - attack_operations(model, x, 1)) / operations(lambda: model(x))


def plain_step_in_forwards(model: Restorer, x: torch.Tensor) -> float:
    """Return what one step costs where the parameters are live and gradients are taken by ``backward()``."""
    with torch.no_grad():
        reference = model(x)

    def step() -> None:
        attacked = (x + 1e-5).requires_grad_()
        (model(attacked) - reference).square().mean().backward()
        model.zero_grad()

    return operations(step) / operations(lambda: model(x))


def attack_operations(model: Restorer, x: torch.Tensor, steps: int) -> int:
    return operations(lambda: IFGSM(epsilon=EPSILON, steps=steps, objective=Copied(OutputShift()))(model, x))


@dataclasses.dataclass(frozen=True)
class Copied:
    """Hand on a copy of the image: the counter cannot follow a gradient to what a module is called with itself."""

    inner: Objective

    def bind(self, model: nn.Module, clean: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        bound = self.inner.bind(model, clean)
        return lambda x: bound(x.clone())


def operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
