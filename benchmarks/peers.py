"""PGD of resolute beside PGD of torchattacks and of foolbox, on the same models, images, objective and steps.

    python benchmarks/peers.py [MODEL ...] [--images FOLDER] [--count 2] [--side 64] [--steps 50] [--rounds 3]

MODEL is a name, a weights file or an address of scale 4. The peers are no dependencies; install them beside resolute,
in an environment of their own: ``pip install torchattacks foolbox``. Both climb a cross entropy, so the model is
wrapped into two logits, zero and the mean squared shift of the output: the entropy rises with the shift, and the sign
of its gradient is the sign of the shift's. All three start at a random point of the whole ball and keep the same step.
SR-PSNR is of the float images that each returns.

Everyone gets one image at a time, the peers the model as torch loads it (default memory format, parameters live),
resolute as its commands lay it out. Peers are timed twice: with the C library's allocator as it comes, which is how
their users run them, and as resolute's command line sets it for its process (``tune_allocator``), which helps whatever
runs there; resolute with the latter alone. The search in bfloat16 stands where the processor has bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from subjects import low_resolution, medians, placed
from torch import nn

from resolute import PGD, Restorer, psnr_rgb
from resolute.attacks.ascent import Precision
from resolute.provenance import provenance
from resolute.runtime import has_bfloat16, tune_allocator
from resolute.studies.datasets import middle

STEP = 0.1


class Judged(nn.Module):
    """A restorer as a classifier of two classes: logits 0 and the mean squared distance from the clean output."""

    def __init__(self, model: nn.Module, clean: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.reference = model(clean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = (self.model(x) - self.reference).square().flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(shift), shift], dim=1)


Attacker = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["edsr-s"], metavar="MODEL")
    parser.add_argument("--images", type=Path, help="folder of low-resolution images, instead of samples")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--side", type=int, help="of the images' middles, instead of whole ones")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=4.0, help="in levels of 255")
    arguments = parser.parse_args()
    x = low_resolution(arguments.count, arguments.images)
    if arguments.side:
        x = torch.stack([middle(image, arguments.side) for image in x])
    size, steps = f"{x.shape[-1]}x{x.shape[-2]}", arguments.steps
    print(f"{provenance().hardware}; {len(x)} images of {size}, {steps} steps, medians of {arguments.rounds}")
    models = {address: placed(address) for address in arguments.models}
    before = {
        address: medians(attacks_on(rivals(model, arguments.epsilon / 255, steps), x), arguments.rounds)
        for address, model in models.items()
    }
    tune_allocator()
    leads: dict[str, list[float]] = {}
    for address, model in models.items():
        attackers = rivals(model, arguments.epsilon / 255, steps)
        mine = ours(model, arguments.epsilon / 255, steps)
        tuned = medians(attacks_on(attackers | mine, x), arguments.rounds)
        best = min(tuned[title] for title in mine)
        name = Path(address.partition("#")[0]).stem
        print(f"\n{name:24} {'ms a step':>12} {'tuned':>7} {'SR-PSNR':>9} {'times as long':>14} {'tuned':>7}")
        for title, attack in (attackers | mine).items():
            attacked = attack(x)
            with torch.no_grad():
                damage = psnr_rgb(model(x), model(attacked)).mean().item()
            met = before[address].get(title, tuned[title])
            row = f"{met / steps / len(x) * 1e3:12.1f} {tuned[title] / steps / len(x) * 1e3:7.1f} {damage:9.2f}"
            print(f"{title:24} {row} {met / best:14.2f} {tuned[title] / best:7.2f}", flush=True)
            if title in attackers:
                leads.setdefault(f"{title}, as it comes", []).append(met / best)
                leads.setdefault(f"{title}, tuned", []).append(tuned[title] / best)
    print()
    for title, ratios in leads.items():
        print(f"{title:36} takes {statistics.fmean(ratios):5.2f} times as long on average, {min(ratios):5.2f} at least")


def attacks_on(attackers: dict[str, Attacker], x: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {title: lambda attack=attack: attack(x) for title, attack in attackers.items()}


def one_by_one(attack: Attacker) -> Attacker:
    return lambda x: torch.cat([attack(image[None]) for image in x])


def ours(model: Restorer, epsilon: float, steps: int) -> dict[str, Attacker]:
    def pgd(precision: Precision) -> Attacker:
        attack = PGD(epsilon=epsilon, steps=steps, relative_step=STEP, precision=precision)
        return one_by_one(lambda image: attack(model, image).unrounded)

    found = {"resolute, float32": pgd("float32")}
    return found | {"and bfloat16 search": pgd("bfloat16")} if has_bfloat16(torch.device("cpu")) else found


def rivals(model: Restorer, epsilon: float, steps: int) -> dict[str, Attacker]:
    try:
        import foolbox
        import torchattacks
    except ImportError as error:
        sys.exit(
            f"{error.name} is not installed; it is compared with, not depended on. In an environment of its own: "
            "pip install torchattacks foolbox"
        )
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)

    def torchattacks_pgd(clean: torch.Tensor) -> torch.Tensor:
        attack = torchattacks.PGD(Judged(plain, clean).eval(), eps=epsilon, alpha=STEP * epsilon, steps=steps)
        return attack(clean, torch.zeros(len(clean), dtype=torch.long))

    def foolbox_pgd(clean: torch.Tensor) -> torch.Tensor:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=steps)
        judged = foolbox.PyTorchModel(Judged(plain, clean).eval(), bounds=(0, 1), device="cpu")
        labels = torch.zeros(len(clean), dtype=torch.long)
        _, found, _ = attack(judged, clean, labels, epsilons=epsilon)
        return found

    return {
        f"torchattacks {torchattacks.__version__}": one_by_one(torchattacks_pgd),
        f"foolbox {foolbox.__version__}": one_by_one(foolbox_pgd),
    }


if __name__ == "__main__":
    main()
