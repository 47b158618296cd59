"""Certificates a second, beside the plain loop of the public code, and where the time goes.

    python benchmarks/certificate.py [--metric quality-s] [--denoiser NAME] [--rounds 3] [--samples 200]
        [--memory | --exact]

The plain loop draws ten noisy copies at a time with torch.randn, clips, scores and takes each score out by itself, in
the default memory format. All are timed in turns in one process and draw the same number of samples. What bfloat16 does
to the bounds is shown beside their margin: how far they lie outside the sample quantiles, for confidence's sake. With
``--memory`` it shows the peak memory of a certificate at n = 1000 and n = 100 000 instead, each in a process of its
own, on a small image; with ``--exact`` what exact noise costs, in processor time, on photographs of several sizes that
are shrunk to 256 pixels as ``resolute certify`` does, in turns.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from attack_step import measure

from resolute import Certificate, DenoisedScorer, load, load_scorer, sample_image
from resolute.certificates import certify
from resolute.certificates.certificate import Smoothing, bounds_of
from resolute.certificates.noise import GaussianNoise
from resolute.certificates.order_statistics import fixed_ranks, level
from resolute.models.base import Scorer
from resolute.models.fitted import FittedScorer, resized, size_within
from resolute.provenance import provenance
from resolute.runtime import tune_allocator

SIGMA, EPSILON, ALPHA = 0.12, 0.05, 0.001
SIDES, FIT = (256, 500, 1000), 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metric", default="quality-s")
    parser.add_argument("--denoiser", default="", help="in front of the metric, such as denoiser-iqa-012")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.metric, arguments.peak)
    elif arguments.memory:
        for n in (1000, 100_000):
            subprocess.run([sys.executable, __file__, "--metric", arguments.metric, "--peak", str(n)], check=True)
    elif arguments.exact:
        exact_noise(arguments.metric, arguments.samples, arguments.rounds)
    else:
        compare(arguments.metric, arguments.denoiser, arguments.samples, arguments.rounds)


def loaded(metric: str, denoiser: str) -> Scorer:
    scorer = load_scorer(metric)
    return DenoisedScorer(scorer, load(denoiser, scale=1)).eval() if denoiser else scorer


def compare(metric: str, denoiser: str, n: int, rounds: int) -> None:
    image = sample_image("coffee")[:, :384, :512].contiguous()
    plain_scorer = loaded(metric, denoiser).to(memory_format=torch.contiguous_format).requires_grad_(True)
    scorer = loaded(metric, denoiser).requires_grad_(False)
    noise = GaussianNoise(image, SIGMA, seed=0)
    copy = torch.empty(1, *image.shape).contiguous(memory_format=torch.channels_last)
    noise.fill(copy, 0)
    side = 1024
    square = torch.rand(side, side)

    def plain_loop() -> list[float]:
        scores = []
        with torch.no_grad():
            for first in range(0, n, 10):
                count = min(10, n - first)
                noisy = (image + SIGMA * torch.randn(count, *image.shape)).clamp(0, 1)
                scores += [score.item() for score in plain_scorer(noisy)]
        return scores

    def forward_only() -> None:
        with torch.no_grad():
            for _ in range(n):
                scorer(copy)

    def noise_only() -> None:
        for index in range(n):
            noise.fill(copy, index)

    products = 20

    def product() -> None:
        for _ in range(products):
            square @ square

    contestants = {
        "plain loop": plain_loop,
        "resolute": lambda: certify(scorer, image, SIGMA, EPSILON, n, ALPHA),
        "resolute, bfloat16": lambda: certify(scorer, image, SIGMA, EPSILON, n, ALPHA, precision="bfloat16"),
        "forward passes alone, one after the other": forward_only,
        "noise alone, on one thread": noise_only,
        "matrix products": product,
    }
    seconds = {name: statistics.median(values) for name, values in measure(contestants, rounds).items()}
    floor = products * 2 * side**3 / seconds.pop("matrix products") / 1e9
    work = operations(scorer, copy)
    threads = torch.get_num_threads()
    title = f"{metric} behind {denoiser}" if denoiser else metric
    print(f"{provenance().hardware}; {threads} threads; {title}, 512x384, n = {n}, medians of {rounds}")
    for name, taken in seconds.items():
        print(f"{name:42} {taken / n * 1e3:7.2f} ms a sample  {seconds['plain loop'] / taken:5.2f} x as fast")
    ours = work * n / seconds["resolute"] / 1e9
    print(f"a matrix product of {side} runs at {floor:.0f} GFLOP/s, a certificate at {ours:.1f}: {ours / floor:.0%}")
    share = seconds["forward passes alone, one after the other"] / seconds["plain loop"]
    print(f"the forward passes alone take {share:.0%} of the plain loop's time")
    exact, fast = (
        certify(scorer, image, SIGMA, EPSILON, n, ALPHA, precision=precision) for precision in ("float32", "bfloat16")
    )
    same_bounds(exact.scores)
    change_of_bounds(exact, fast)


def exact_noise(metric: str, n: int, rounds: int) -> None:
    """Show what exact noise costs, which is added to the file's own pixels."""
    scorer = load_scorer(metric)
    print(f"{provenance().hardware}; {torch.get_num_threads()} threads; {metric}, n = {n}, medians of {rounds}")
    for side in SIDES:
        image = resized(sample_image("coffee")[None], (side, side))[0].mul(255).round() / 255
        contestants = {
            "gaussian": lambda image=image: certify(scorer, image, n=n, size=size_within(image, FIT)),
            "exact": lambda image=image: certify(FittedScorer(scorer, FIT), image, n=n, noise="grid"),
        }
        took: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                began = time.process_time()
                contestant()
                took[name].append((time.process_time() - began) / n * 1e3)
        plain, exact = (statistics.median(values) for values in took.values())
        print(f"{side} x {side}: {plain:6.1f} ms a copy, exact {exact:6.1f}, {exact / plain - 1:+.0%}", flush=True)


def change_of_bounds(exact: Certificate, fast: Certificate) -> None:
    """Show what bfloat16 does to the bounds, on the same noise."""
    p = level(EPSILON, SIGMA)
    quantiles = np.quantile(exact.scores, [p, 1 - p])
    margins = quantiles[0] - exact.lower, exact.upper - quantiles[1]
    moved = abs(fast.lower - exact.lower), abs(fast.upper - exact.upper)
    print(
        f"bfloat16 moves the bounds by {moved[0]:.4f} and {moved[1]:.4f}; their margins are {margins[0]:.4f} and "
        f"{margins[1]:.4f}"
    )


def same_bounds(scores: np.ndarray) -> None:
    """Show that ranks and bounds are those of the textbook rule, spelled out, on the same scores."""
    n, p = len(scores), level(EPSILON, SIGMA)
    rng_free = sorted(scores)
    k = max((k for k in range(1, n + 1) if at_least(n, p, k) >= 1 - ALPHA / 2), default=0)
    ours = bounds_of(np.sort(scores), EPSILON, Smoothing(sigma=SIGMA, n=n, alpha=ALPHA), -np.inf, np.inf)
    assert ours.ranks == fixed_ranks(n, p, ALPHA)
    assert (ours.ranks.low, ours.ranks.high) == (k, n + 1 - k)
    assert (ours.lower, ours.upper) == (rng_free[k - 1], rng_free[n - k])
    print(f"ranks {k} and {n + 1 - k}, bounds [{ours.lower:.4f}, {ours.upper:.4f}]: as by the textbook rule")


def at_least(n: int, p: float, k: int) -> float:
    from scipy import stats

    return float(stats.binom.sf(k - 1, n, p))


def operations(scorer: Scorer, x: torch.Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        scorer(x)
    return counter.get_total_flops()


def peak(metric: str, n: int) -> None:
    scorer = load_scorer(metric)
    image = sample_image("coffee")[:, :64, :64].contiguous()
    certify(scorer, image, SIGMA, EPSILON, n, ALPHA)
    print(f"n = {n}: peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    tune_allocator()
    main()
