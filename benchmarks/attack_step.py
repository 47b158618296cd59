"""What one attack step costs, beside the cost that no step can go below and beside a plain loop.

    python benchmarks/attack_step.py [--model edsr-s] [--rounds 3]

The floor is one forward pass and one backward pass to the input. The plain loop is the one that is written first: live
parameters, float32, default memory format. All are timed in turns in one process, so that ratios survive a busy
machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from resolute import IFGSM, load, sample_image
from resolute.provenance import provenance
from resolute.resize import downscale
from resolute.runtime import tune_allocator

STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="edsr-s")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    photo = (sample_image("coffee") * 255).round().byte().permute(1, 2, 0).numpy()[:320, :480]
    x = torch.from_numpy(downscale(photo, 4)).permute(2, 0, 1)[None] / 255.0
    plain_model = load(arguments.model).to(memory_format=torch.contiguous_format).requires_grad_(True)
    model = load(arguments.model).requires_grad_(False)

    def plain_loop() -> None:
        reference = plain_model(x).detach()
        shift = torch.zeros_like(x).uniform_(-1e-5, 1e-5)
        for _ in range(STEPS):
            shift.requires_grad_(True)
            (plain_model(x + shift) - reference).square().mean().backward()
            shift = (shift + 4 / 255 / STEPS * shift.grad.sign()).clamp(-4 / 255, 4 / 255).detach()

    def floor() -> None:
        reference = model(x)
        for _ in range(STEPS):
            z = (x + 1e-5).requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=True):
                torch.autograd.grad((model(z) - reference).square().mean(), z)

    contestants: dict[str, Callable[[], object]] = {
        "plain loop": plain_loop,
        "resolute, float32": lambda: IFGSM(epsilon=4 / 255, steps=STEPS)(model, x),
        "resolute, bfloat16": lambda: IFGSM(epsilon=4 / 255, steps=STEPS, precision="bfloat16")(model, x),
        "floor, bfloat16": floor,
    }
    seconds = measure(contestants, arguments.rounds)
    lowest = statistics.median(seconds["floor, bfloat16"])
    print(f"{provenance().hardware}; {arguments.model}, {x.shape[-1]}x{x.shape[-2]}, medians of {arguments.rounds}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:20} {median / STEPS * 1e3:7.1f} ms a step  {median / lowest:5.2f} x the floor")


def measure(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time all contestants in turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    tune_allocator()
    main()
