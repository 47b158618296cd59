"""What the first paper's FDA may have been: every plausible reading of eq. 13, on a plain model and a regularised one.

    python benchmarks/fda_readings.py edsr-s edsr-s-entropy --images BSD100 [--count 5] [--crop 32] [--delta 1]

The paper has EDSR keep 31.65 dB of SR-PSNR at 4/255, and 41.03 dB with its regulariser. Readings differ in where the
attack starts, which layers it disrupts, in the sign, in whose features tell weak from strong, in the length of a step,
and in whether the regulariser was still at work, so that noise on Φ reaches the gradient or the output as well. The
last iterate counts, on the 8-bit grid, T = 50. Two rows without an attack stand beside them: uniform noise and random
signs. Rows are ordered by how far both figures are from the paper's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Generator
from pathlib import Path

import torch
from torch import Tensor

from resolute import Restorer, load
from resolute.attacks import FeatureDisruption
from resolute.attacks.ball import Linf
from resolute.defences.entropy import EntropyRegularizer
from resolute.measure.fidelity import psnr_rgb, psnr_y
from resolute.models.base import frozen
from resolute.pairing import matched_images
from resolute.runtime import tune_allocator
from resolute.training.judge import photographs

EPSILON = 4 / 255
STEPS = 50
PAPER = (31.65, 41.03)
READINGS = {
    "start": ("clean", "uniform"),
    "layers": ("phi", "all-relu"),
    "sign": ("up", "down"),
    "mask": ("clean", "attacked"),
    "step": ("epsilon / T", "epsilon"),
    "noise": ("off", "gradient", "gradient and output"),
}


def attacked(model: Restorer, x: Tensor, reading: dict[str, str], delta: float, generator: torch.Generator) -> Tensor:
    """Return the last iterate of one reading on the 8-bit grid."""
    ball = Linf(EPSILON)
    objective = FeatureDisruption(layers=(reading["layers"],), mask=reading["mask"])  # pyright: ignore
    sign = 1 if reading["sign"] == "up" else -1
    length = EPSILON / STEPS if reading["step"] == "epsilon / T" else EPSILON
    point = x
    if reading["start"] == "uniform":
        point = ball.project(ball.random(x, generator, EPSILON), x)
    with frozen(model):
        bound = objective.bind(model, x)
        with noisy(model, delta, generator) if reading["noise"] != "off" else contextlib.nullcontext():
            for _ in range(STEPS):
                point = point.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(bound(point).sum(), point)
                point = ball.project(point.detach() + sign * length * gradient.sign(), x)
    return ball.round(point, x)


@contextlib.contextmanager
def noisy(model: Restorer, delta: float, generator: torch.Generator) -> Generator[None]:
    """Run a model with the noise of eq. 12 on Φ, as it was trained."""
    regularizer = EntropyRegularizer(1, weight=0, delta=delta).train()
    regularizer.generator = generator
    with regularizer.attached(model, model.feature_layer):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain")
    parser.add_argument("defended")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--delta", type=float, default=1.0)
    given = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    models = [load(name).eval() for name in (given.plain, given.defended)]
    files = photographs(matched_images([given.images], models[0].scale), models[0].scale, given.count)
    images = [one.cut(given.crop).tensors(torch.device("cpu"))[0] for one in files]
    rows: list[tuple[float, str]] = []

    def kept(model: Restorer, x: Tensor, moved: Tensor, noise: str, generator: torch.Generator) -> tuple[float, float]:
        with torch.no_grad():
            clean = model(x)
            with noisy(model, given.delta, generator) if noise == "gradient and output" else contextlib.nullcontext():
                output = model(moved)
        return float(psnr_rgb(clean, output)), float(psnr_y(clean, output, border=model.scale))

    def tell(name: str, found: list[list[tuple[float, float, float]]]) -> None:
        means = [[sum(column) / len(column) for column in zip(*one, strict=True)] for one in found]
        away = max(abs(one[0] - paper) for one, paper in zip(means, PAPER, strict=True))
        cells = [f"{one[0]:.2f} | {one[1]:.2f} | {one[2]:.2f}" for one in means]
        rows.append((away, f"| {name} | {' | '.join(cells)} |"))
        print(rows[-1][1], flush=True)

    for name in ("uniform noise", "random signs"):
        found = []
        for model in models:
            one = []
            for place, x in enumerate(images):
                generator = torch.Generator().manual_seed(place)
                uniform = torch.rand(x.shape, generator=generator) * 2 - 1
                moved = Linf(EPSILON).round(x + EPSILON * (uniform if name == "uniform noise" else uniform.sign()), x)
                one.append((*kept(model, x, moved, "off", generator), float(psnr_rgb(x, moved))))
            found.append(one)
        tell(name, found)
    for values in itertools.product(*READINGS.values()):
        reading = dict(zip(READINGS, values, strict=True))
        found = []
        for model in models:
            one = []
            for place, x in enumerate(images):
                generator = torch.Generator().manual_seed(place)
                # The plain model has no regulariser to leave on.
                noise = reading["noise"] if model is models[1] else "off"
                moved = attacked(model, x, reading | {"noise": noise}, given.delta, generator)
                one.append((*kept(model, x, moved, noise, generator), float(psnr_rgb(x, moved))))
            found.append(one)
        tell(", ".join(f"{key} {value}" for key, value in reading.items()), found)
    each = "SR-PSNR | on Y | LR-PSNR"
    print(f"\n| reading | plain: {each} | defended: {each} |\n|---|{'--:|' * 6}")
    for _, line in sorted(rows):
        print(line)


if __name__ == "__main__":
    main()
