"""PGD of resolute beside PGD of torchattacks and of foolbox, on the same model, images, objective and steps.

    python benchmarks/peers.py [MODEL] [--images FOLDER] [--count 2] [--steps 50] [--rounds 3] [--epsilon 4]

MODEL is a name or a weights file of scale 4. The peers are no dependencies; install them beside
resolute, in an environment of their own: ``pip install torchattacks foolbox``. Both climb a cross entropy, so the model
is wrapped into two logits, zero and the mean squared shift of the output: the entropy rises with the shift, and the
sign of its gradient is the sign of the shift's. All three start at a random point of the whole ball and keep the same
step. SR-PSNR is of the float images that each returns.

The peers get the model as torch loads it (default memory format, parameters live), and one image at a time. Below them
resolute's own gains are added one by one. All is timed twice: with the C library's allocator as it comes, then as
resolute's command line sets it for its process (``tune_allocator``), which helps whatever runs there. The ratio is to
the last line under the second, which is what ``resolute attack`` does.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from subjects import low_resolution, medians
from torch import nn

from resolute import PGD, Restorer, load, psnr_rgb
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

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
    parser.add_argument("model", nargs="?", default="edsr-s")
    parser.add_argument("--images", type=Path, help="folder of low-resolution images, instead of samples")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=4.0, help="in levels of 255")
    arguments = parser.parse_args()
    x = low_resolution(arguments.count, arguments.images)
    compare(arguments.model, x, arguments.epsilon / 255, arguments.steps, arguments.rounds)


def compare(name: str, x: torch.Tensor, epsilon: float, steps: int, rounds: int) -> None:
    model = load(name, scale=4)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)

    def ours(net: Restorer, precision: str, batch: int) -> Attacker:
        attack = PGD(epsilon=epsilon, steps=steps, relative_step=STEP, precision=precision)
        return lambda x: torch.cat([attack(net, part).unrounded for part in x.split(batch)])

    rivals = peers(plain, epsilon, steps)
    attackers = {
        **rivals,
        "resolute, float32": ours(plain, "float32", 1),
        "+ channels_last": ours(model, "float32", 1),
        "+ bfloat16 search": ours(model, "bfloat16", 1),
        "+ all images at once": ours(model, "bfloat16", len(x)),
    }
    runs = {title: lambda attacker=attacker: attacker(x) for title, attacker in attackers.items()}
    as_it_comes = medians(runs, rounds)
    tune_allocator()
    tuned = medians(runs, rounds)
    found = {title: attacker(x) for title, attacker in attackers.items()}
    with torch.no_grad():
        damage = {title: psnr_rgb(model(x), model(attacked)).mean().item() for title, attacked in found.items()}
    size = f"{x.shape[-1]}x{x.shape[-2]}"
    print(f"{provenance().hardware}; {Path(name).stem}, {len(x)} images of {size}, {steps} steps, medians of {rounds}")
    print(f"{'ms a step and image':24} {'as it comes':>12} {'tuned':>7} {'SR-PSNR':>9} {'times as long':>14}")
    best = list(tuned.values())[-1]
    for title in attackers:
        before, after = (seconds[title] / steps / len(x) * 1e3 for seconds in (as_it_comes, tuned))
        ratio = (as_it_comes if title in rivals else tuned)[title] / best
        print(f"{title:24} {before:12.1f} {after:7.1f} {damage[title]:9.2f} {ratio:14.2f}")


def peers(model: nn.Module, epsilon: float, steps: int) -> dict[str, Attacker]:
    try:
        import foolbox
        import torchattacks
    except ImportError as error:
        sys.exit(
            f"{error.name} is not installed; it is compared with, not depended on. In an environment of its own: "
            "pip install torchattacks foolbox"
        )

    def torchattacks_pgd(clean: torch.Tensor) -> torch.Tensor:
        attack = torchattacks.PGD(Judged(model, clean).eval(), eps=epsilon, alpha=STEP * epsilon, steps=steps)
        return attack(clean, torch.zeros(len(clean), dtype=torch.long))

    def foolbox_pgd(clean: torch.Tensor) -> torch.Tensor:
        attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=steps)
        judged = foolbox.PyTorchModel(Judged(model, clean).eval(), bounds=(0, 1), device="cpu")
        labels = torch.zeros(len(clean), dtype=torch.long)
        _, found, _ = attack(judged, clean, labels, epsilons=epsilon)
        return found

    def one_by_one(attack: Attacker) -> Attacker:
        return lambda x: torch.cat([attack(image[None]) for image in x])

    return {
        f"torchattacks {torchattacks.__version__}": one_by_one(torchattacks_pgd),
        f"foolbox {foolbox.__version__}": one_by_one(foolbox_pgd),
    }


if __name__ == "__main__":
    main()
