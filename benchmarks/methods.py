"""Which method hardens best: all of them on one network, with equal arithmetic, at equal clean PSNR.

    python benchmarks/methods.py MODEL --data PHOTOS --images BSD100 [--work 40] [--out FOLDER]

Each method trains for the same number of forward passes of a patch (a backward pass counts as two, and one to the image
alone as one), so that a method whose steps cost more takes fewer. What comes out is judged by APGD and by PGD on the
truth, two starts each, at several places of the straight line between the weights before and after: what can be had at
what clean PSNR. Rows are kept in FOLDER/rows.jsonl, and a killed run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from resolute.attacks.apgd import APGD
from resolute.attacks.gradient import PGD
from resolute.attacks.targeted import ReferenceShift, Truth
from resolute.defences.loading import load_defended
from resolute.pairing import matched_images
from resolute.runtime import tune_allocator
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.harden_task import HardenTask, between
from resolute.training.judge import judge, photographs
from resolute.training.loop import fabric_for, fit
from resolute.training.recipe import read_recipe

METHODS = {
    "plain": ["plain"],
    "adversarial": ["adversarial"],
    "fast": ["fast"],
    "free": ["free"],
    "consistency": ["consistency"],
    "jacobian": ["jacobian"],
    "worst-jacobian": ["worst-jacobian"],
    "jitter": ["jitter"],
    "entropy": ["entropy"],
    "adversarial+entropy": ["adversarial", "entropy"],
    "adversarial+averaging": ["adversarial", "averaging"],
}
# Of the way from the weights before to those after: what is judged.
SHARES = (1.0, 0.8, 0.6, 0.4)


def cost(recipe: HardenRecipe) -> float:
    """Return what a step costs, in forward passes of one patch."""
    batch = recipe.data.batch
    seen, total = batch, 0.0
    if recipe.adversarial is not None:
        clean = recipe.adversarial.clean(batch)
        attacked = batch - clean if clean < batch else batch
        seen = clean + attacked
        total += 2 * recipe.adversarial.steps * attacked
    twins = 0
    if recipe.consistency is not None:
        twins += 1
        total += seen * (1 + 2 * recipe.consistency.steps)
    if recipe.jacobian is not None:
        twins += 1
        total += seen * (1 + 2 * recipe.jacobian.iterations) if recipe.jacobian.direction == "worst" else 0
    return total + 3 * seen * (1 + twins) + (batch if recipe.anchor else 0)


def changed(recipe: HardenRecipe, settings: list[str]) -> HardenRecipe:
    """Return the recipe with fields set, as ``adversarial.share=0.6`` or ``anchor=0``."""
    for setting in settings:
        key, _, text = setting.partition("=")
        value = json.loads(text)
        table, _, field = key.rpartition(".")
        if table:
            value = dataclasses.replace(getattr(recipe, table), **{field: value})
        recipe = dataclasses.replace(recipe, **{table or field: value})
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=float, default=40, help="thousand forward passes of a patch")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    parser.add_argument("--name", default="", help="of the rows, where --set changes a method")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    given = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    rows = given.out / "rows.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    model = load_defended(given.model).to(given.device)
    images = [
        one.cut(given.crop)
        for one in photographs(matched_images([given.images], model.scale), model.scale, given.count)
    ]
    epsilon = 4 / 255
    attacks = {
        "APGD": APGD(epsilon=epsilon, steps=100, restarts=2),
        "PGD on the truth": PGD(epsilon=epsilon, steps=50, restarts=2, objective=ReferenceShift(Truth())),
    }

    def row(network: torch.nn.Module, name: str, share: float, **more: object) -> None:
        found = [judge(network, image, attacks)[0] for image in images]
        figures = {key: sum(getattr(one, key) for one in found) / len(found) for key in ("clean", "kept", "truth")}
        each = {key: [round(getattr(one, key), 3) for one in found] for key in ("clean", "kept", "truth")}
        line = {"model": given.model, "method": name, "share": share, **figures, **more, "each": each}
        with rows.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{name:28} {share:4.2f} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()),
            flush=True,
        )

    if not any(one["method"] == "before" for one in done):
        row(model.eval(), "before", 1.0)
    for name in given.methods:
        title = given.name or name
        if any(one["method"] == title for one in done):
            continue
        # What a method costs is what is asked here, so that nothing holds it back.
        recipe = changed(read_recipe("harden", METHODS[name]), ["clean_loss=0", *given.settings])
        steps = round(1000 * given.work / cost(recipe))
        recipe = dataclasses.replace(
            recipe,
            optimizer=dataclasses.replace(recipe.optimizer, steps=steps),
            checkpoint_every=max(1, round(50 / recipe.replay)) * recipe.replay,
            validate_every=max(1, steps // 20),
        )
        network = load_defended(given.model).eval().to(given.device)
        task = HardenTask(recipe, network, matched_images([given.data], model.scale), lambda *_: None, unfreeze=True)
        began = time.process_time()
        folder = given.out / title
        folder.mkdir(parents=True, exist_ok=True)
        fit(recipe, task, folder, fabric_for(recipe, given.device))
        seconds = time.process_time() - began
        before, after = task.before.state_dict(), task.made.state_dict()
        for share in given.shares:
            task.made.load_state_dict(between(before, after, share))
            row(task.made, title, share, steps=steps, seconds=seconds)
        task.made.load_state_dict(after)


if __name__ == "__main__":
    main()
