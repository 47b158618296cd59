"""How much weaker attacks get when they search in bfloat16; the verdict is float32 either way.

    python benchmarks/precision.py [MODELS...] [--images FOLDER] [--count 2] [--steps 50] [--budgets 1 2 4 8]

MODELS are names or weights files of scale 4; ``edsr-s`` by default. Shown is the mean SR-PSNR of the float images in dB
by either search; a difference above zero means that bfloat16 found less.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from subjects import low_resolution

from resolute import FDA, IFGSM, PGD, Attack, Restorer, load, psnr_rgb
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

TOLERANCE = 0.1


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
    print(f"{'':30} {'float32':>9} {'bfloat16':>9} {'weaker by':>10}")
    for name in arguments.models:
        model = load(name, scale=4)
        for kind in (IFGSM, FDA, PGD):
            for level in arguments.budgets:
                exact, fast = (
                    damage(model, kind(epsilon=level / 255, steps=arguments.steps, precision=precision), x)
                    for precision in ("float32", "bfloat16")
                )
                mark = "  TOO WEAK" if fast - exact > TOLERANCE else ""
                title = f"{Path(name).stem:14} {kind.__name__:7} {level:g}/255"
                print(f"{title:30} {exact:9.2f} {fast:9.2f} {fast - exact:+10.2f}{mark}", flush=True)


def damage(model: Restorer, attack: Attack, x: torch.Tensor) -> float:
    """Return the mean SR-PSNR of what the attack finds, one image at a time."""
    with torch.no_grad():
        return statistics.mean(
            psnr_rgb(model(image[None]), model(attack(model, image[None]).unrounded)).item() for image in x
        )


if __name__ == "__main__":
    tune_allocator()
    main()
