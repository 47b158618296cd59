"""PGD of resolute beside PGD of torchattacks and of foolbox, on the same model, images, objective and steps.

    python benchmarks/peers.py [MODELS...] [--images FOLDER] [--count 2] [--steps 20] [--rounds 3] [--epsilon 4]

MODELS are names or weights files of scale 4; ``edsr-s`` by default. The peers are no dependencies; install them beside
resolute, in an environment of their own: ``pip install torchattacks foolbox``. Both climb a cross entropy, so the model
is wrapped into two logits, zero and the mean squared shift of the output: the entropy rises with the shift, and the
sign of its gradient is the sign of the shift's. All three start at a random point of the whole ball and keep the same
step. SR-PSNR is of the float images that each returns.

The peers get the model as torch loads it (default memory format, parameters live), and one image at a time. Below them
resolute's own gains are added one by one.
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
from resolute.runtime import fast_precision, tune_allocator

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
    parser.add_argument("models", nargs="*", default=["edsr-s"])
    parser.add_argument("--images", type=Path, help="folder of low-resolution images, instead of samples")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=4.0, help="in levels of 255")
    arguments = parser.parse_args()
    x = low_resolution(arguments.count, arguments.images)
    for name in arguments.models:
        compare(name, x, arguments.epsilon / 255, arguments.steps, arguments.rounds)


def compare(name: str, x: torch.Tensor, epsilon: float, steps: int, rounds: int) -> None:
    model = load(name, scale=4)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).requires_grad_(True)
    fast = fast_precision("cpu")

    def ours(net: Restorer, precision: str, batch: int) -> Attacker:
        attack = PGD(epsilon=epsilon, steps=steps, relative_step=STEP, precision=precision)
        return lambda x: torch.cat([attack(net, part).unrounded for part in x.split(batch)])

    attackers = {
        **peers(plain, epsilon, steps),
        "resolute, float32": ours(plain, "float32", 1),
        "+ channels_last": ours(model, "float32", 1),
        **({f"+ {fast} search": ours(model, fast, 1)} if fast != "float32" else {}),
        "+ all images at once": ours(model, fast, len(x)),
    }
    runs = {title: lambda attacker=attacker: attacker(x) for title, attacker in attackers.items()}
    seconds = medians(runs, rounds)
    found = {title: attacker(x) for title, attacker in attackers.items()}
    with torch.no_grad():
        damage = {title: psnr_rgb(model(x), model(attacked)).mean().item() for title, attacked in found.items()}
    best = list(seconds)[-1]
    size = f"{x.shape[-1]}x{x.shape[-2]}"
    print(f"{provenance().hardware}; {Path(name).stem}, {len(x)} images of {size}, {steps} steps, medians of {rounds}")
    print(f"{'':24} {'ms a step and image':>20} {'SR-PSNR':>9} {'times as long as the last':>26}")
    for title, taken in seconds.items():
        each = taken / steps / len(x) * 1e3
        print(f"{title:24} {each:20.1f} {damage[title]:9.2f} {taken / seconds[best]:26.2f}")


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
    tune_allocator()
    main()
