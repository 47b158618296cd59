"""CLEVER by the paper's uniform draws and by sign-power steps: both indices, and what each cost.

    python benchmarks/clever.py [MODELS...] [--samples 1024] [--steps 10] [--starts 4] [--images FOLDER]

MODELS are names or weights files of scale 4; ``edsr-s`` by default. Without ``--images``, a crop of a sample image of
scikit-image, shrunk to 60 x 60 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from resolute import clever, load, sample_image
from resolute.folders import find_images
from resolute.images import read_image
from resolute.measure import clever_power
from resolute.provenance import provenance
from resolute.resize import downscale
from resolute.runtime import tune_allocator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["edsr-s"])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--images", type=Path, nargs="+", help="low-resolution images, instead of the sample")
    arguments = parser.parse_args()
    print(provenance().hardware)
    for name in arguments.models:
        model = load(name, scale=4)
        for title, image in subjects(arguments.images):
            draws = clever(model, image, samples=arguments.samples)
            power = clever_power(model, image, steps=arguments.steps, starts=arguments.starts)
            ascents = power.gradient_norms.view(arguments.starts, -1)
            print(f"{Path(name).stem}, {title}, {image.shape[-1]}x{image.shape[-2]}")
            print(
                f"  uniform draws     {draws.index:8.1f}  {draws.gradients:5} gradients {draws.seconds:7.1f} s   "
                f"mean {draws.gradient_norms.mean():.1f}, standard deviation {draws.gradient_norms.std():.1f}"
            )
            print(
                f"  sign-power steps  {power.index:8.1f}  {power.gradients:5} gradients {power.seconds:7.1f} s   "
                f"{power.index / draws.index - 1:+.0%}; the starts end between {ascents.amax(dim=1).min():.1f} and "
                f"{ascents.amax(dim=1).max():.1f}"
            )


def subjects(folders: list[Path] | None) -> list[tuple[str, torch.Tensor]]:
    if folders:
        return [(path.stem, read_image(path)[None]) for path in find_images(folders)]
    photo = (sample_image("coffee") * 255).round().byte().permute(1, 2, 0).numpy()[:240, :240]
    return [("coffee", torch.from_numpy(downscale(photo, 4)).permute(2, 0, 1)[None] / 255.0)]


if __name__ == "__main__":
    tune_allocator()
    main()
