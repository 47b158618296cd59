"""What order statistics of very many outputs cost: time a copy, peak memory, width of the bracket.

    python benchmarks/restoration_memory.py --size 480 320 --samples 10000

Outputs are drawn from normal laws, one a value, without a network. The samples that fit are kept beside the histograms.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from resolute.certificates.copies import BLOCK
from resolute.certificates.order_statistics import fixed_ranks, level
from resolute.certificates.restoration import MEMORY
from resolute.certificates.samples import Samples


def main() -> None:
    """Add samples, ask for two ranks, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 320))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--memory", type=int, default=MEMORY)
    asked = parser.parse_args()
    size, n = 3 * asked.size[0] * asked.size[1], asked.samples
    generator = torch.Generator().manual_seed(0)
    middle, spread = torch.rand(size, generator=generator), 0.001 + 0.03 * torch.rand(size, generator=generator)
    before = peak()
    samples, seconds = Samples(n, size, asked.memory), 0.0
    block = torch.empty(BLOCK, size)
    for first in range(0, n, BLOCK):
        block.normal_(generator=generator).mul_(spread).add_(middle).clamp_(0, 1)
        began = time.process_time()
        samples.add(block[: n - first])
        seconds += time.process_time() - began
    samples.settle()
    ranks = fixed_ranks(n, level(0.25, 1.0), 0.001 / size)
    assert ranks.low is not None
    began = time.process_time()
    low, high = samples.bracket(ranks.low)
    asked_for = time.process_time() - began
    width = float((high - low).div(spread).mean())
    print(
        f"{n:,} samples of {size:,} values: {1000 * seconds / n:.1f} ms of one core each, {asked_for:.1f} s a rank; "
        f"{samples.kept:,} kept, {peak() - before:.2f} GB more at most, a bracket is {width:.3f} standard deviations"
    )


def peak() -> float:
    """Return the largest memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
