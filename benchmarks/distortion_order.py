"""Whether a quality metric puts the levels of a distortion in order, from the original down.

    python benchmarks/distortion_order.py quality-m quality-s --images PHOTOGRAPHS --count 30

Every photograph comes as it is and in five levels of each distortion, or of two of them together. Prints for each
metric and distortion SROCC between its scores and the levels within a photograph, mean over the photographs with a 95 %
bootstrap interval. Photographs without visible distortions of their own are what is asked for: what a JPEG or a blur
has left in them counts as none.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from resolute import load_scorer
from resolute.folders import find_images
from resolute.images import from_uint8, read_image, to_uint8
from resolute.measure import bootstrap_mean
from resolute.measure.agreement import srocc
from resolute.models import Scorer
from resolute.provenance import provenance
from resolute.randomness import stream_seed
from resolute.table import Column, Table, row
from resolute.training.distortions import Distortion, blur, jpeg, noise
from resolute.training.rated import spread

Pixels = NDArray[np.uint8]

LEVELS = 5


def jpeg2000(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Compress with JPEG 2000, 16 to 256 times."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG2000", quality_mode="rates", quality_layers=[16 * 16.0**level])
    return np.asarray(Image.open(buffer))


def low_contrast(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    """Lower the contrast to 0.7 down to 0.15 of what it is: unlike a higher one, nobody takes that for better."""
    mean = image.mean()
    return np.round(mean + (image - mean) * 0.7 * (0.15 / 0.7) ** level).astype(np.uint8)


def both(first: Distortion, second: Distortion, image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return second(first(image, level, rng), level, rng)


DISTORTIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "blur": blur,
    "noise": noise,
    "JPEG": jpeg,
    "JPEG 2000": jpeg2000,
    "contrast": low_contrast,
    "blur, noise": partial(both, blur, noise),
    "blur, JPEG": partial(both, blur, jpeg),
    "noise, JPEG": partial(both, noise, jpeg),
    "contrast, JPEG 2000": partial(both, low_contrast, jpeg2000),
}


def ladder(image: Pixels, name: str, index: int, seed: int) -> list[Pixels]:
    """Return a photograph as it is, and its levels of a distortion, which share one noise."""
    streams = [np.random.default_rng(stream_seed(seed, name, index)) for _ in range(LEVELS)]
    # Pillow cannot do with NumPy's floats.
    levels = np.linspace(0, 1, LEVELS).tolist()
    distort = DISTORTIONS[name]
    return [image, *(distort(image, level, stream) for level, stream in zip(levels, streams, strict=True))]


@torch.no_grad()
def order(metric: Scorer, rungs: list[Pixels]) -> float:
    """Return SROCC between what a metric says and how little distorted an image is."""
    scores = [metric(from_uint8(rung)[None]).item() for rung in rungs]
    return srocc(scores, [float(rung if metric.lower_better else -rung) for rung in range(len(rungs))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="+", help="names or files")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="photographs, or folders of them")
    parser.add_argument("--count", type=int, default=30, help="photographs, spread evenly over the sorted files")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    arguments = parser.parse_args()
    files = find_images(arguments.images)
    chosen = [files[i] for i in spread(len(files), arguments.count)]
    photos = [to_uint8(read_image(file)) for file in chosen]
    metrics = {name: load_scorer(name) for name in arguments.metrics}
    rows = []
    for name in DISTORTIONS:
        rungs = [ladder(photo, name, index, arguments.seed) for index, photo in enumerate(photos)]
        cells = []
        for metric in metrics.values():
            found = bootstrap_mean([order(metric, each) for each in rungs])
            cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
        rows.append(row(name, *cells))
        print(f"{name}: {', '.join(cells)}", flush=True)
    print(f"\n{provenance().hardware}; {len(photos)} photographs, {LEVELS} levels and the original\n")
    print(Table("", [Column("distortion"), *(Column(name) for name in metrics)], rows).markdown(), end="")


if __name__ == "__main__":
    main()
