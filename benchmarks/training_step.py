"""What one step of hardening costs beside the loop that one would write by hand, for every method.

    python benchmarks/training_step.py [--model edsr-xs] [--rounds 5] [--methods adversarial entropy]

The loops by hand take the same patches, arithmetic, memory layout and optimiser, and nothing else: no log, no check for
NaN, no resuming. All are timed in turns in one process, so that ratios survive a busy machine.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from resolute import load, sample_image
from resolute.attacks.features import layer_outputs
from resolute.defences.entropy import EntropyRegularizer
from resolute.images import write_png
from resolute.models.base import Restorer
from resolute.pairing import matched_images
from resolute.provenance import provenance
from resolute.runtime import tune_allocator
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.harden_task import HardenTask
from resolute.training.loop import fabric_for
from resolute.training.recipe import read_recipe

STEPS = 3
EPSILON = 4 / 255
METHODS = ("plain", "adversarial", "fast", "consistency", "jacobian", "entropy")


def attack(model: Restorer, low: torch.Tensor, target: torch.Tensor, steps: int, length: float) -> torch.Tensor:
    x = (low + EPSILON * (2 * torch.rand_like(low) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad((model(x) - target).square().sum(), x)
        x = (x.detach() + length * EPSILON * gradient.sign()).clamp(low - EPSILON, low + EPSILON).clamp(0, 1)
    return x


def by_hand(method: str, model: Restorer, recipe: HardenRecipe) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Return a step written by hand."""
    before = copy.deepcopy(model).requires_grad_(False)
    parameters = list(model.parameters())
    channels = layer_outputs(model, torch.zeros(1, 3, 16, 16), (model.feature_layer,))[0].shape[1]
    density = EntropyRegularizer(channels, delta=0.05, init_scale=1.0, weight=0.1).train()
    optimizer = torch.optim.Adam([*parameters, *(density.parameters() if method == "entropy" else [])], lr=2e-4)

    def step(low: torch.Tensor, high: torch.Tensor) -> None:
        low = low.to(memory_format=torch.channels_last)
        clean = 3 if method in ("adversarial", "fast") else len(low)
        model.requires_grad_(False)
        seen, twin = low, None
        if method in ("adversarial", "fast"):
            steps, length = (10, 0.25) if method == "adversarial" else (1, 1.25)
            seen = torch.cat([low[:clean], attack(model, low[clean:], high[clean:], steps, length)])
        if method == "consistency":
            with torch.no_grad():
                target = model(low)
            twin = attack(model, low, target, 10, 0.25)
        if method == "jacobian":
            twin = low + torch.randn_like(low) / 255
        model.requires_grad_(True)
        with torch.no_grad():
            goal = torch.cat([torch.lerp(high[:clean], before(low[:clean]), 0.5), high[clean:]])
        if method == "entropy":
            with density.attached(model, model.feature_layer):
                output = model(seen)
                loss = F.l1_loss(output * 255, goal * 255) + density.loss()
        elif twin is None:
            loss = F.l1_loss(model(seen) * 255, goal * 255)
        else:
            output, other = model(torch.cat([seen, twin])).chunk(2)
            loss = F.l1_loss(output * 255, goal * 255)
            loss = loss + (
                F.l1_loss(other * 255, output * 255)
                if method == "consistency"
                else 255 * (other - output).square().mean()
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optimizer.clip)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edsr-xs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    given = parser.parse_args()
    tune_allocator()
    from resolute.training.loop import _TrainingRun  # its step alone, without the reading and judging around it

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("astronaut", "chelsea", "coffee", "rocket"):
            write_png(folder / "photos" / f"{name}.png", sample_image(name))
        print(f"{provenance().hardware}; {given.model}, 5 patches of 32 x 32, {torch.get_num_threads()} threads")
        print("| method | Resolute / by hand, median of rounds | each |\n|---|--:|---|")
        for method in given.methods:
            recipe = read_recipe("harden", [method])
            recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validation=1))
            model = load(given.model)
            task = HardenTask(recipe, model, matched_images([folder / "photos"], model.scale), lambda *_: None)
            run = _TrainingRun(
                recipe, task, folder / method, fabric_for(recipe, "cpu"), folder / f"{method}.safetensors"
            )
            hand = by_hand(method, load(given.model).to(memory_format=task.memory_format), recipe)
            batches = [task.batch(step, 0, 1) for step in range(STEPS)]
            ratios: list[float] = []
            for _round in range(given.rounds + 1):
                began = time.perf_counter()
                for _ in range(STEPS):
                    run.advance()
                middle = time.perf_counter()
                for low, high in batches:
                    hand(low, high)
                ratios.append((middle - began) / (time.perf_counter() - middle))
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios[1:])
            print(f"| {method} | {statistics.median(ratios[1:]):.2f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
