"""The first paper on real networks: fine-tune one in all ways of its ablations, and measure what came of them.

    python docs/make_first_paper.py NAME ADDRESS --data PHOTOS [PHOTOS ...] --images BSD100 --out RUNS
        [--layer LAYER] [--steps 2000] [--variants plain entropy ...] [--device cuda] [--workers 12]

NAME-VARIANT is trained in RUNS, for all variants on the same patches in the same order, in float32, and without the
share of the former output that ``resolute harden`` trains with; then the study first-paper.toml beside this file is
run on all of them, with the names of its models and claims put in front by NAME. ``resolute report RUNS/NAME --out
docs/studies/first-paper-NAME.md`` writes the page. A killed run goes on. Workers are forked, so that images are read
once, and share a GPU well where NVIDIA's multi-process service runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from resolute.attacks.registry import AttackTable
from resolute.defences import load_defended
from resolute.engine.queue import Machine
from resolute.engine.running import plan_of, run
from resolute.models.address import parse_address
from resolute.pairing import matched_images
from resolute.runtime import full_float32, tune_allocator
from resolute.studies.claims import Claim
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study
from resolute.training import patches
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.harden_task import HardenTask
from resolute.training.loop import fabric_for, fit
from resolute.training.recipe import read_recipe
from resolute.training.subject import subject_of

STUDY = Path(__file__).parent / "studies" / "first-paper.toml"

# The paper's adversarial training (section 5.6): one step of 8/255 away from the original, beside the clean patch.
_PAPER = {"level": 8.0, "steps": 1, "start": "clean", "share": 0.0, "relative_step": None}

# Methods by name, and what is set otherwise in their tables. λ is 0.1 and δ 0.05 of the spread of Φ where not said.
VARIANTS: dict[str, tuple[list[str], dict[str, dict[str, Any]]]] = {
    "plain": ([], {}),
    "entropy": (["entropy"], {}),
    "pe": (["entropy"], {"defence": {"noise": False, "bits_at": "clean"}}),
    "noise": (["entropy"], {"defence": {"weight": 0.0}}),
    "adversarial": (["adversarial"], {"adversarial": _PAPER}),
    "adversarial-entropy": (["adversarial", "entropy"], {"adversarial": _PAPER}),
    "lambda-0.01": (["entropy"], {"defence": {"weight": 0.01}}),
    "lambda-1": (["entropy"], {"defence": {"weight": 1.0}}),
    "first": (["entropy"], {"defence": {"layer": "first"}}),
    "delta-0.01": (["entropy"], {"defence": {"delta": "0.01 std"}}),
    "delta-0.25": (["entropy"], {"defence": {"delta": "0.25 std"}}),
    "as-published": (
        ["entropy"],
        {"defence": {"weight": 1.0, "delta": 1.0, "init_scale": 10.0, "rate": 1.0, "ramp": 0.0}},
    ),
}


def main() -> None:
    """Train what is not trained yet, and run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("address", help="of the network, relative to the folder in which this is run")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layer", default="", help="whose output is Φ, where that is not found")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Reading takes longer than many a training here.
    patches._read = functools.cache(patches._read)  # pyright: ignore[reportPrivateUsage]
    files = matched_images(asked.data, 4)
    patches.Patches(files, 4, 32)
    made = functools.partial(train, asked, files)
    places = dict(zip(asked.variants, each(made, asked.variants, asked.workers), strict=True))
    study = named(asked.name, places, asked.images.resolve(), asked.layer)
    # Runs of one study in one folder share the work.
    measured = functools.partial(measure, study, asked.out.resolve() / asked.name, asked.device)
    each(measured, list(range(asked.workers)), asked.workers)


def each(work: Any, items: Sequence[Any], workers: int) -> list[Any]:
    """Do a piece of work for all items, in processes of their own if there are several."""
    if workers == 1:
        return [work(item) for item in items]
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        return pool.map(work, items, chunksize=1)


def recipe_of(name: str, variant: str, layer: str, steps: int) -> HardenRecipe:
    """Return how a variant is trained."""
    methods, tables = VARIANTS[variant]
    recipe = read_recipe("harden", methods)
    assert isinstance(recipe, HardenRecipe)
    if layer and recipe.defence is not None:
        tables = {**tables, "defence": {"layer": layer, **tables.get("defence", {})}}
    changes: dict[str, Any] = {
        table: dataclasses.replace(getattr(recipe, table), **settings) for table, settings in tables.items()
    }
    return dataclasses.replace(
        recipe,
        name=f"{name}-{variant}",
        anchor=0.0,
        data=dataclasses.replace(recipe.data, patch=32, batch=4),
        optimizer=dataclasses.replace(recipe.optimizer, steps=steps),
        checkpoint_every=250,
        validate_every=max(1, steps // 2),
        validate_first=False,
        **changes,
    )


def train(asked: argparse.Namespace, files: Sequence[Any], variant: str) -> str:
    """Fine-tune the network in one way, and return the address of what came out."""
    recipe = recipe_of(asked.name, variant, asked.layer, asked.steps)
    folder = (asked.out / recipe.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    subject = subject_of(load_defended(asked.address), asked.address)
    weights = folder / f"{recipe.name}{Path(subject.file_name).suffix}"
    if not weights.is_file():
        with full_float32():
            model = subject.model.eval().to(asked.device)
            task = HardenTask(recipe, model, files, subject.write, unfreeze=True)
            fit(recipe, task, folder, fabric_for(recipe, asked.device), weights=weights)
        print(f"{recipe.name}: {(folder / 'log.jsonl').read_text().splitlines()[-1]}", flush=True)
    return str(parse_address(asked.address).holding(weights))


def named(name: str, places: dict[str, str], images: Path, layer: str) -> Grid:
    """Return the study of the variants of one network, with those of its claims that are about them."""
    study = read_study(STUDY)
    assert isinstance(study, Grid)
    attacks = study.attacks
    if layer:
        attacks = tuple(
            AttackTable(one.kind, label=one.label, layers=[layer])
            if one.kind == "fda" and "layers" not in one.options
            else one
            for one in attacks
        )

    def of(claim: Claim) -> Claim:
        return dataclasses.replace(claim, order=tuple(tuple(f"{name}-{one}" for one in tier) for tier in claim.order))

    return dataclasses.replace(
        study,
        name=f"first-paper-{name}",
        models=tuple(places.values()),
        baseline=f"{name}-plain" if "plain" in places else "",
        attacks=attacks,
        images=(f"bsd100={images}",),
        expected=tuple(of(claim) for claim in study.expected if set(claim.names) <= set(places)),
    )


def measure(study: Grid, folder: Path, device: str, _number: int) -> None:
    """Take part in the study until nothing of it is left."""
    run(plan_of(study), folder, Machine(device=device))


if __name__ == "__main__":
    main()
