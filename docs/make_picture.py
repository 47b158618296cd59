"""Make the pictures of the README: what attacks make of photographs, before and after `resolute harden`.

    python docs/make_picture.py 'rlfn.py:RLFN_cut#x4,range=255,weights=rlfn.pth' \\
        'rlfn.py:RLFN_cut#x4,range=255,weights=runs/rlfn-hardened/rlfn-hardened.pth' --image motorcycle:100,100

An image is a sample of scikit-image or a file, with the top and left of the crop; each is a row. Left to right: the
original; then, for each model, the output for the clean input and for the input that the judge's attacks make of it,
the one that leaves the output farthest from the original.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from drawing import sheet

from resolute import load
from resolute.images import SAMPLE_NAMES, read_image, sample_image, to_uint8
from resolute.models.base import Restorer
from resolute.resize import downscale, mod_crop
from resolute.training.judge import Photograph, judge, suite

SIDE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--image", nargs="+", default=["motorcycle:100,100"])
    parser.add_argument("--budget", type=float, default=4)
    parser.add_argument("--out", type=Path, default=Path("docs/images/harden.webp"))
    arguments = parser.parse_args()
    models = [load(arguments.before), load(arguments.after)]
    rows = [panels(models, name, arguments.budget / 255) for name in arguments.image]
    sheet(rows, arguments.out, side=SIDE, quality=88)


def panels(models: Sequence[Restorer], image: str, epsilon: float) -> list[tuple[np.ndarray, str]]:
    """Return the original of a crop, ``name:top,left``, and what both models make of it, with captions."""
    name, _, corner = image.rpartition(":")
    top, left = (int(one) for one in corner.split(","))
    whole = sample_image(name) if name in SAMPLE_NAMES else read_image(Path(name))
    high = mod_crop(to_uint8(whole[:, top : top + SIDE, left : left + SIDE]), models[0].scale)
    photograph = Photograph(name, downscale(high, models[0].scale), high)
    row: list[tuple[np.ndarray, str]] = [(high, "original")]
    for words, model in zip(("before", "hardened"), models, strict=True):
        found, seen = judge(model, photograph, suite(epsilon))
        row.append((to_uint8(seen.clean_output.clamp(0, 1)), f"{words}: {found.clean:.1f} dB"))
        row.append((to_uint8(seen.output.clamp(0, 1)), f"{words}, attacked:\n{found.truth:.1f} dB"))
    return row


if __name__ == "__main__":
    main()
