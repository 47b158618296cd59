"""Do masks of trust hold what they promise, on photographs that they were not calibrated on, and what breaks them?

    python benchmarks/trust.py --data BSD100 --other Set14 [--models edsr-s edsr-xs bicubic] [--count 50]

``BSD100`` and ``Set14`` are folders of high-resolution photographs, shrunk here as MATLAB does. Every other one of the
first calibrates, at most ``--count``, and the others are judged. Then 1,000 random parts of all of
them, each calibrated on some and judged on the others; inputs that were made otherwise or attacked, and other
photographs, by the same threshold; and other scores in place of steepness. Seed 0; tables are Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resolute import Restorer, load
from resolute.certificates.faithfulness import Nudges
from resolute.certificates.trust import (
    LEAST_SHARE,
    THRESHOLDS,
    Trust,
    beyond,
    fingerprint_of,
    losses_of,
    steepness_map,
    worst_shares,
)
from resolute.corruptions import corrupted
from resolute.defences.wrappers import gaussian
from resolute.folders import find_images
from resolute.images import from_uint8, read_image, to_uint8
from resolute.measure.intervals import bootstrap_mean
from resolute.measure.parts import parts_of
from resolute.models.base import name_of
from resolute.resize import downscale, mod_crop
from resolute.runtime import full_float32, tune_allocator

RATE = 0.1
SPLITS = 1000
Pair = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["edsr-s", "edsr-xs", "bicubic"])
    parser.add_argument("--bounds", type=float, nargs="+", default=[8, 16, 32])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--attacked", type=int, default=10)
    given = parser.parse_args()
    tune_allocator()
    pairs = [pair_of(path) for path in find_images([given.data])][: 2 * given.count]
    others = [pair_of(path) for path in find_images([given.other])][: given.count]
    models = [load(name) for name in given.models]
    outputs = {name_of(model): [restored(model, low) for low, _ in pairs] for model in models}
    print(held_out(models, outputs, pairs, given.bounds), flush=True)
    print(resplit(models, outputs, pairs, given.bounds), flush=True)
    print(scores(models[0], outputs[name_of(models[0])], pairs), flush=True)
    print(broken(models[0], outputs[name_of(models[0])], pairs, others, given.attacked))


def pair_of(path: Path) -> Pair:
    """Return the input and the truth of a photograph."""
    truth = mod_crop(to_uint8(read_image(path)), 4)
    return from_uint8(downscale(truth, 4)), from_uint8(truth)


def restored(model: Restorer, low: Tensor) -> Tensor:
    """Return what a model makes of an input."""
    with torch.no_grad(), full_float32():
        return model(low[None])[0]


def trust_on(model: Restorer, losses: Sequence[tuple[float, ...]], bound: float) -> Trust:
    """Return the calibration of so many losses."""
    return Trust(
        model=name_of(model), fingerprint=fingerprint_of(model), photographs="benchmark", bound=bound,
        losses=tuple(losses),
    )  # fmt: skip


def judged(trust: Trust, outputs: Sequence[Tensor], pairs: Sequence[Pair], bound: float) -> np.ndarray:
    """Return for each photograph the shares that are trusted, and wrong: of those, of the others, and of all."""
    rows: list[list[float]] = []
    for output, (_, truth) in zip(outputs, pairs, strict=True):
        mask, wrong = trust.mask(output, 4, RATE), beyond(output, truth, bound)
        rows.append([float(part.double().mean()) if part.numel() else 0.0
                     for part in (mask, wrong[mask], wrong[~mask], wrong)])  # fmt: skip
    return 100 * np.array(rows)


def row(name: str, found: np.ndarray) -> str:
    """Return a row of a table: means, the interval of what counts, and how many photographs lie above the rate."""
    trusted, wrong, others, every = found.mean(axis=0)
    around = bootstrap_mean(found[:, 1].tolist())
    above = 100 * float((found[:, 1] > 100 * RATE).mean())
    words = f"**{wrong:.1f}** [{around.low:.1f}, {around.high:.1f}]"
    return f"| {name} | {trusted:.1f} | {words} | {others:.1f} | {every:.1f} | {above:.0f} % of {len(found)} |"


HEAD = "| {} | trusted, % | of them wrong, % | of the others, % | of all, % | photographs above 10 % |"
RULE = "|---|--:|--:|--:|--:|--:|"


def held_out(
    models: Sequence[Restorer], outputs: dict[str, list[Tensor]], pairs: Sequence[Pair], bounds: Sequence[float]
) -> str:
    """Return the table of photographs that were not calibrated on."""
    rows = [HEAD.format("model, bound"), RULE]
    for model in models:
        own = outputs[name_of(model)]
        for bound in bounds:
            losses = [losses_of(o, truth, bound, 4) for o, (_, truth) in zip(own, pairs, strict=True)]
            found = judged(trust_on(model, losses[::2], bound), own[1::2], pairs[1::2], bound)
            rows.append(row(f"{name_of(model)}, {bound:g}/255", found))
    return "\n".join([*rows, ""])


def resplit(
    models: Sequence[Restorer], outputs: dict[str, list[Tensor]], pairs: Sequence[Pair], bounds: Sequence[float]
) -> str:
    """Return the table of random splits: what is wrong of the trusted pixels, over splits, at a few sizes."""
    sizes = [size for size in (9, 20, 50) if size < len(pairs)]
    rows = [f"| model, bound | {' | '.join(f'{size} to calibrate' for size in sizes)} |", "|---|" + "--:|" * len(sizes)]
    for model in models:
        for bound in bounds:
            shares, losses = curves(outputs[name_of(model)], pairs, bound)
            cells: list[str] = []
            for size in sizes:
                rng = np.random.default_rng(0)
                means: list[float] = []
                for _ in range(SPLITS):
                    order = rng.permutation(len(pairs))
                    threshold = trust_on(model, [losses[i] for i in order[:size]], bound).threshold(RATE)
                    place = THRESHOLDS.index(threshold) if threshold else None
                    means.append(0.0 if place is None else float(shares[order[size:], place].mean()))
                cells.append(f"{100 * np.mean(means):.2f} ± {100 * np.std(means):.2f}")
            rows.append(f"| {name_of(model)}, {bound:g}/255 | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def curves(
    outputs: Sequence[Tensor], pairs: Sequence[Pair], bound: float
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Return for each photograph what is wrong of the pixels up to each threshold, as they are and as losses."""
    shares: list[list[float]] = []
    losses: list[tuple[float, ...]] = []
    for output, (_, truth) in zip(outputs, pairs, strict=True):
        steepness, wrong = steepness_map(output, 4).double(), beyond(output, truth, bound)
        own: list[float] = []
        for threshold in THRESHOLDS:
            mask = steepness <= threshold
            held = float(mask.double().mean()) >= LEAST_SHARE
            own.append(float(wrong[mask].double().mean()) if held else 0.0)
        shares.append(own)
        losses.append(losses_of(output, truth, bound, 4))
    return np.array(shares), losses


def scores(model: Restorer, outputs: Sequence[Tensor], pairs: Sequence[Pair], bound: float = 16) -> str:
    """Return how many pixels are trusted by other scores, calibrated likewise."""
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "steepness of the output": lambda output, low: steepness_map(output, 4),
        "movement under noise of 2/255": lambda output, low: moved(model, output, low),
        "what is added, a local mean": lambda output, low: local(parts_of(output[None], low[None]).added),
        "what contradicts the input, a local mean": lambda output, low: local(
            parts_of(output[None], low[None]).contradicted
        ),
        "steepness of bicubic interpolation": lambda output, low: steepness_map(restored(load("bicubic"), low), 4),
    }
    rows = ["| score | trusted, % | of them wrong, % |", "|---|--:|--:|"]
    for name, way in ways.items():
        maps = [way(output, low) for output, (low, _) in zip(outputs, pairs, strict=True)]
        wrong = [beyond(output, truth, bound) for output, (_, truth) in zip(outputs, pairs, strict=True)]
        losses = [worst_shares(*one) for one in zip(maps[::2], wrong[::2], strict=True)]
        threshold = trust_on(model, losses, bound).threshold(RATE)
        masks = [one.double() <= threshold for one in maps[1::2]]
        trusted = [float(mask.double().mean()) for mask in masks]
        failed = [
            float(bad[mask].double().mean()) if share >= LEAST_SHARE else 0.0
            for bad, mask, share in zip(wrong[1::2], masks, trusted, strict=True)
        ]
        rows.append(f"| {name} | {100 * np.mean(trusted):.1f} | {100 * np.mean(failed):.1f} |")
    return "\n".join([*rows, ""])


def local(part: Tensor) -> Tensor:
    """Return the root mean square of a part around each pixel, in levels."""
    return gaussian(part.square(), 2.0)[0].mean(dim=0).sqrt() * 255


def moved(model: Restorer, output: Tensor, low: Tensor) -> Tensor:
    """Return how far noise moves each pixel, in levels."""
    nudges = Nudges()
    changes = [(restored(model, nudges.noisy(low, draw, 0)) - output).abs() for draw in range(nudges.draws)]
    return gaussian(torch.stack(changes).mean(dim=0)[None], 2.0)[0].amax(dim=0) * 255


def broken(
    model: Restorer, outputs: Sequence[Tensor], pairs: Sequence[Pair], others: Sequence[Pair], attacked: int
) -> str:
    """Return the table of what is promised nothing: other photographs, inputs made otherwise, attacked ones."""
    bound = 16.0
    losses = [losses_of(o, truth, bound, 4) for o, (_, truth) in zip(outputs[::2], pairs[::2], strict=True)]
    trust, held = trust_on(model, losses, bound), pairs[1::2]
    rows = [HEAD.format("input"), RULE, row("as calibrated", judged(trust, outputs[1::2], held, bound))]

    def add(name: str, cases: Sequence[Pair]) -> None:
        rows.append(row(name, judged(trust, [restored(model, low) for low, _ in cases], cases, bound)))

    add("other photographs", others)
    for severity, kernel in ((1, "Lanczos"), (4, "bilinear"), (5, "nearest")):
        add(f"shrunk otherwise: {kernel}",
            [(corrupted(low, "kernel", severity, truth=truth, scale=4), truth) for low, truth in held])  # fmt: skip
    nudges = Nudges()
    damages: dict[str, Callable[[Tensor], Tensor]] = {
        "JPEG of quality 85": nudges.stored, "noise of 8/255": lambda low: corrupted(low, "noise", 4)
    }  # fmt: skip
    for name, damage in damages.items():
        damaged = [(damage(low), truth) for low, truth in pairs]
        add(name, damaged[1::2])
        made = [restored(model, low) for low, _ in damaged]
        losses = [losses_of(o, truth, bound, 4) for o, (_, truth) in zip(made[::2], pairs[::2], strict=True)]
        found = judged(trust_on(model, losses, bound), made[1::2], damaged[1::2], bound)
        rows.append(row(f"{name}, calibrated on such inputs", found))
    some = held[:: max(1, len(held) // attacked)][:attacked]
    add(f"{len(some)} of them alone", some)
    for level in (2, 8):
        attack = Nudges(level=level).attack(model, some[0][0][None])
        found = [from_uint8(to_uint8(attack(model, low[None]).images[0])) for low, _ in some]
        add(f"these attacked, {level}/255", [(low, truth) for low, (_, truth) in zip(found, some, strict=True)])
    return "\n".join([*rows, ""])


if __name__ == "__main__":
    main()
