"""The worst case of the standard suite beside other libraries and a plain loop, at equal numbers of gradients.

    python benchmarks/strength.py MODEL... --images FOLDER [--count 4] [--epsilon 4] [--runs 5] [--only NAME...]
        [--suite sr-linf-1] [--device cpu]

MODEL is an address of scale 4, as ``resolute benchmark`` takes it; FOLDER holds the images of BSD100. Names, crops,
attacks, precision and seed are those of the suite, or of another study of the kind. torchattacks and foolbox are no
dependencies: ``pip install torchattacks foolbox`` in an environment of its own; where they are not, the plain loop is
alone.

Every other contestant spends as many gradients on an image as the suite does at this budget, a query counted as half of
one, in ``--runs`` runs of equal length from random points of the ball. They climb the squared distance from the clean
output (see ``peers.py``), in float32, on the same network with the same layout of weights. What a run returns is
rounded to 8 bits inside the ball and judged in float32; the worst of an image's runs counts. Rows are printed as they
come; what was stopped goes on with the networks that are left.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from peers import STEP, Judged
from subjects import SUITE, placed, suite_of
from torch import Tensor

from resolute import Restorer, psnr_rgb
from resolute.attacks import GradientAttack, Linf
from resolute.provenance import provenance
from resolute.runtime import full_float32, tune_allocator
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, measure_all
from resolute.studies.grid import Grid

# A model, clean images, radius and steps; returns the attacked images of one run.
Run = Callable[[Restorer, Tensor, float, int], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images of BSD100")
    parser.add_argument("--suite", default=SUITE, help="a built-in study or its TOML file")
    parser.add_argument("--count", type=int, default=4, help="so many of the suite's images")
    parser.add_argument("--epsilon", type=float, default=4.0, help="a budget of the suite, in levels of 255")
    parser.add_argument("--runs", type=int, default=5, help="of the others, of equal length")
    parser.add_argument("--only", nargs="+", help="the others that are wanted, in place of all")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    study = suite_of(arguments.images, arguments.count, arguments.suite)
    others = {name: run for name, run in rivals().items() if arguments.only is None or name in arguments.only}
    leads: list[float] = []
    for address in arguments.models:
        model = placed(address, arguments.device)
        assert model.card is not None
        suite, spent = judged_by_suite(study, model, arguments.epsilon / 255)
        if not leads:
            print(heading(arguments, study, spent, others), flush=True)
        means = {name: mean(one) for name, one in suite.items()}
        best = min(means, key=means.__getitem__)
        worst = sum(map(min, zip(*(map(decibels, one) for one in suite.values()), strict=True))) / len(study.names)
        x = torch.cat([subject.low for subject in study.subjects()]).to(arguments.device)
        theirs = [
            worst_of(run, model, x, arguments.epsilon / 255, arguments.runs, spent // arguments.runs)
            for run in others.values()
        ]
        leads.append(min(theirs) - worst)
        cells = [f"{worst:.2f}", f"{best} {means[best]:.2f}", *(f"{one:.2f}" for one in theirs), f"{leads[-1]:+.2f}"]
        print(f"| {model.card.name} | {' | '.join(cells)} |", flush=True)
    stronger = sum(lead > 0 for lead in leads)
    print(f"\nThe suite is stronger on {stronger} of {len(leads)} networks, by {min(leads):+.2f} dB at least.")


def judged_by_suite(study: Grid, model: Restorer, epsilon: float) -> tuple[dict[str, list[AttackRecord]], int]:
    """Return what the suite's attacks of one budget find, by attack, one record an image, and the gradients spent."""
    cells = [one for one in study.cells_of([model]) if isinstance(one, AttackCell) and one.attack.epsilon == epsilon]
    cleans = {cell.subject.name: Clean.of(model, cell.subject) for cell in cells}
    found: dict[str, list[AttackRecord]] = {}
    spent = 0
    outcomes = measure_all(cells, [cleans[cell.subject.name] for cell in cells])
    for cell, outcome in zip(cells, outcomes, strict=True):
        found.setdefault(cell.label, []).append(outcome.record)
        spent += outcome.record.gradients // (1 if isinstance(cell.attack, GradientAttack) else 2)
    return found, spent // len(cleans)


def worst_of(run: Run, model: Restorer, x: Tensor, epsilon: float, runs: int, steps: int) -> float:
    """Return the mean SR-PSNR of the worst of some runs on every image, judged as the suite's."""
    found: list[Tensor] = []
    with torch.no_grad(), full_float32():
        clean = model(x)
    for seed in range(runs):
        torch.manual_seed(seed)
        with full_float32():
            attacked = Linf(epsilon).round(run(model, x, epsilon, steps).detach(), x)
        with torch.no_grad(), full_float32():
            found.append(psnr_rgb(clean, model(attacked)))
    return torch.stack(found).amin(dim=0).mean().item()


def plain(model: Restorer, x: Tensor, epsilon: float, steps: int) -> Tensor:
    """PGD as anybody would write it who has an afternoon: steps of one length, the best point kept."""
    with torch.no_grad():
        clean = model(x)
    point = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    best, highest = point, torch.full((len(x),), -torch.inf)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        shift = (model(point) - clean).square().flatten(1).mean(dim=1)
        (gradient,) = torch.autograd.grad(shift.sum(), point)
        better = shift.detach() > highest
        best = torch.where(better.view(-1, 1, 1, 1), point.detach(), best)
        highest = torch.where(better, shift.detach(), highest)
        moved = point.detach() + STEP * epsilon * gradient.sign()
        point = (x + (moved - x).clamp(-epsilon, epsilon)).clamp(0, 1)
    return best


def rivals() -> dict[str, Run]:
    """Return the other contestants by name; torchattacks and foolbox where they are installed."""
    found: dict[str, Run] = {"plain loop": plain}
    try:
        import foolbox
        import torchattacks
    except ImportError as error:
        print(f"{error.name} is not installed, and left out: pip install torchattacks foolbox", file=sys.stderr)
        return found

    def label(x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=torch.long, device=x.device)

    def torchattacks_pgd(model: Restorer, x: Tensor, epsilon: float, steps: int) -> Tensor:
        attack = torchattacks.PGD(Judged(model, x).eval(), eps=epsilon, alpha=STEP * epsilon, steps=steps)
        return attack(x, label(x))

    def foolbox_pgd(model: Restorer, x: Tensor, epsilon: float, steps: int) -> Tensor:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=steps)
        judged = foolbox.PyTorchModel(Judged(model, x).eval(), bounds=(0, 1), device=x.device)
        _, attacked, _ = attack(judged, x, label(x), epsilons=epsilon)
        return attacked

    return {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd} | found


def heading(arguments: argparse.Namespace, study: Grid, spent: int, others: dict[str, Run]) -> str:
    """Return what was measured, and the head of the table."""
    steps = spent // arguments.runs
    return (
        f"{provenance().hardware}; {study.name} at {arguments.epsilon:g}/255 on {len(study.names)} of its images, seed "
        f"{study.seed}; the others {arguments.runs} x {steps} gradients, seeds from 0\n\n"
        f"| SR-PSNR, dB | suite | its strongest | {' | '.join(others)} | suite stronger by |\n"
        f"|---|--:|---|{'--:|' * (len(others) + 1)}"
    )


def decibels(record: AttackRecord) -> float:
    return float("inf") if record.sr_psnr is None else record.sr_psnr


def mean(records: list[AttackRecord]) -> float:
    return sum(map(decibels, records)) / len(records)


if __name__ == "__main__":
    tune_allocator()
    main()
