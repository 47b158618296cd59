"""How much weaker attacks get when they search in less than float32, and how much faster; the verdict is float32.

    python benchmarks/precision.py [MODEL...] [--precision mixed] [--attacks apgd] [--steps 100] [--budgets 4]
        [--images FOLDER] [--count 4] [--seeds 1]

MODEL is a name, or an address of scale 4 as ``resolute benchmark`` takes it; ``edsr-s`` by default. FOLDER holds the
images of BSD100, of which the standard suite's crops are attacked; without one, samples are. All images are attacked in
one batch, with the weights laid out as studies lay them out. Shown is the mean SR-PSNR of the float images in dB by
either search from the same starts; a difference above zero means that the faster one found less. Both are timed on
these very runs, which take turns.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from subjects import clock, low_resolution, placed, suite_of
from torch import Tensor

from resolute import APGD, FDA, IFGSM, PGD, Restorer, psnr_rgb
from resolute.attacks import GradientAttack, Job, attack_all
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

KINDS = {"ifgsm": IFGSM, "fda": FDA, "pgd": PGD, "apgd": APGD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["edsr-s"])
    parser.add_argument("--precision", choices=("mixed", "bfloat16"), default="mixed")
    parser.add_argument("--attacks", nargs="+", choices=KINDS, default=["apgd"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--budgets", type=float, nargs="+", default=[4], help="in levels of 255")
    parser.add_argument("--images", type=Path, help="folder of the images of BSD100, instead of samples")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1, help="starts of every image")
    arguments = parser.parse_args()
    if arguments.images is None:
        x = low_resolution(arguments.count)
    else:
        x = torch.cat([subject.low for subject in suite_of(arguments.images, arguments.count).subjects()])
    size = f"{len(x)} images of {x.shape[-1]} x {x.shape[-2]}"
    print(f"{provenance().hardware}; {size}, {arguments.steps} steps, seeds 0 to {arguments.seeds - 1}\n")
    print(f"| SR-PSNR, dB | attack | float32 | {arguments.precision} | weaker by | times as fast |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    losses: list[float] = []
    gains: list[float] = []
    for name in arguments.models:
        model = placed(name)
        assert model.card is not None
        for kind in arguments.attacks:
            for level in arguments.budgets:
                pair = [
                    KINDS[kind](epsilon=level / 255, steps=arguments.steps, precision=precision)
                    for precision in ("float32", arguments.precision)
                ]
                runs = [[found(model, attack, x, seed) for attack in pair] for seed in range(arguments.seeds)]
                (exact, slow), (fast, quick) = (
                    map(statistics.mean, zip(*one, strict=True)) for one in zip(*runs, strict=True)
                )
                losses.append(fast - exact)
                gains.append(slow / quick)
                figures = f"{exact:.2f} | {fast:.2f} | {losses[-1]:+.2f} | {gains[-1]:.2f}"
                print(f"| {model.card.name} | {kind} at {level:g}/255 | {figures} |", flush=True)
    mean, median = statistics.mean(losses), statistics.median(gains)
    print(f"\nWeaker by {mean:+.3f} dB on average, and {median:.2f} times as fast in the median.")


def found(model: Restorer, attack: GradientAttack, x: Tensor, seed: int) -> tuple[float, float]:
    """Return the mean SR-PSNR of what an attack finds, and its time in seconds."""
    tick = clock()
    began = tick()
    attacked = attack_all(model, [Job(attack, image[None], seed) for image in x], values=False)
    seconds = tick() - began
    with torch.no_grad():
        return statistics.mean(psnr_rgb(model(one.clean), model(one.unrounded)).item() for one in attacked), seconds


if __name__ == "__main__":
    tune_allocator()
    main()
