"""How much weaker attacks get when they search in bfloat16; the verdict is float32 either way.

    python benchmarks/precision.py [MODELS...] [--images FOLDER] [--count 2] [--steps 50] [--budgets 1 2 4 8]

MODELS are names or weights files of scale 4; ``edsr-s`` by default. Shown is the mean SR-PSNR of the float images in dB
by either search; a difference above zero means that bfloat16 found less. ``same arithmetic`` takes the clean output
that the search compares with in bfloat16 too, so that part of the rounding cancels.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from subjects import low_resolution
from torch import nn

from resolute import IFGSM, PGD, OutputShift, load, psnr_rgb
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

TOLERANCE = 0.1


@dataclasses.dataclass(frozen=True)
class SameArithmetic:
    """The shift of the output from a clean output in the arithmetic of the search."""

    def bind(self, model: nn.Module, clean: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        exact = OutputShift().bind(model, clean)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            reference = model(clean).float()

        def shift(x: torch.Tensor) -> torch.Tensor:
            if not torch.is_autocast_enabled("cpu"):
                return exact(x)
            return (model(x).float() - reference).square().flatten(1).mean(dim=1)

        return shift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["edsr-s"])
    parser.add_argument("--images", type=Path, help="folder of low-resolution images, instead of samples")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--budgets", type=float, nargs="+", default=[1, 2, 4, 8], help="in levels of 255")
    arguments = parser.parse_args()
    x = low_resolution(arguments.count, arguments.images)
    print(f"{provenance().hardware}; {len(x)} images of {x.shape[-1]}x{x.shape[-2]}, {arguments.steps} steps")
    print(f"{'':34} {'float32':>9} {'bfloat16':>9} {'weaker by':>10} {'same arithmetic, weaker by':>27}")
    for name in arguments.models:
        model = load(name, scale=4)
        with torch.no_grad():
            clean = model(x)
        for kind in (IFGSM, PGD):
            for level in arguments.budgets:

                def damage(precision: str, objective: object, kind: type = kind, level: float = level) -> float:
                    attack = kind(epsilon=level / 255, steps=arguments.steps, precision=precision, objective=objective)
                    with torch.no_grad():
                        return psnr_rgb(clean, model(attack(model, x).unrounded)).mean().item()

                exact = damage("float32", OutputShift())
                fast = damage("bfloat16", OutputShift())
                same = damage("bfloat16", SameArithmetic())
                mark = "  TOO WEAK" if fast - exact > TOLERANCE else ""
                print(
                    f"{Path(name).stem:14} {kind.__name__:8} {level:5g}/255 {exact:9.2f} {fast:9.2f} {fast - exact:+10.2f} "
                    f"{same - exact:+27.2f}{mark}",
                    flush=True,
                )


if __name__ == "__main__":
    tune_allocator()
    main()
