"""One batch of images, budgets and restarts against one at a time, within several limits on memory.

    python benchmarks/batches.py edsr-s

Prints, for every limit, how many runs share a batch, processor time against one at a time, peak memory above the start,
and the largest difference of the objective. Each limit has a process of its own, since a peak does not come down again.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from resolute import load, sample_image
from resolute.attacks import PGD, Job, attack_all
from resolute.attacks.batch import footprint
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

MIB = 2**20


def jobs(side: int, steps: int) -> list[Job]:
    images = [sample_image(name)[None, :, 100 : 100 + side, 100 : 100 + side] for name in ("coffee", "chelsea")]
    attacks = [PGD(epsilon=level / 255, steps=steps, restarts=2) for level in (1, 4, 16)]
    return [Job(attack, image) for image in images for attack in attacks]


def run(name: str, side: int, steps: int, memory: int | None) -> tuple[int, float, float, list[float]]:
    tune_allocator()
    torch.set_num_threads(1)
    model, work = load(name), jobs(side, steps)
    one = footprint(model, work[0].attack.ascent(), work[0].image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = attack_all(model, work, memory=memory)
    spent = time.process_time() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return 1 if memory is None else max(1, memory // one), spent, peak, [float(each.objective) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="edsr-s")
    parser.add_argument("--side", type=int, default=80, help="of the low-resolution images, in pixels")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--limits", type=int, nargs="*", default=[128, 256, 512], help="in MiB")
    arguments = parser.parse_args()
    size = f"{arguments.side}x{arguments.side}"
    print(f"{provenance().hardware}; {arguments.model}, {size}, 2 images, 3 budgets, 2 restarts, one thread")
    print(f"{'limit':>10} {'a batch':>8} {'time':>6} {'MiB':>6} {'objective':>10}")
    alone: tuple[float, list[float]] | None = None
    for limit in (None, *arguments.limits):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            memory = None if limit is None else limit * MIB
            many, spent, peak, found = pool.submit(
                run, arguments.model, arguments.side, arguments.steps, memory
            ).result()
        alone = alone or (spent, found)
        apart = max(abs(a / b - 1) for a, b in zip(found, alone[1], strict=True))
        label = "one" if limit is None else f"{limit} MiB"
        print(f"{label:>10} {min(many, 12):8} {spent / alone[0]:6.2f} {peak:6.0f} {apart:10.4f}")


if __name__ == "__main__":
    main()
