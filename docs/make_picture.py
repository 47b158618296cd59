"""Make the pictures of the README: what attacks make of a photograph, before and after `resolute harden`.

    python docs/make_picture.py 'rlfn.py:RLFN_cut#x4,range=255,weights=rlfn.pth' \\
        'rlfn.py:RLFN_cut#x4,range=255,weights=runs/rlfn-hardened/rlfn-hardened.pth' --image motorcycle

Left to right: the original; then, for each model, the output for the clean input and for the input that the judge's
attacks make of it, the one that leaves the output farthest from the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resolute import load
from resolute.images import sample_image, to_uint8
from resolute.resize import downscale
from resolute.training.judge import Photograph, judge, suite

SIDE, GAP, CAPTION = 224, 8, 44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--image", default="motorcycle")
    parser.add_argument("--corner", type=int, nargs=2, default=(100, 100), help="top and left of the crop")
    parser.add_argument("--budget", type=float, default=4)
    parser.add_argument("--out", type=Path, default=Path("docs/images/harden.webp"))
    arguments = parser.parse_args()
    top, left = arguments.corner
    models = [load(arguments.before), load(arguments.after)]
    high = to_uint8(sample_image(arguments.image)[:, top : top + SIDE, left : left + SIDE])
    photograph = Photograph(arguments.image, downscale(high, models[0].scale), high)
    panels: list[tuple[np.ndarray, str]] = [(high, "original")]
    for words, model in zip(("before", "hardened"), models, strict=True):
        found, seen = judge(model, photograph, suite(arguments.budget / 255))
        panels.append((to_uint8(seen.clean_output.clamp(0, 1)), f"{words}: {found.clean:.1f} dB"))
        panels.append((to_uint8(seen.output.clamp(0, 1)), f"{words}, attacked:\n{found.truth:.1f} dB"))
    sheet = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (pixels, caption) in enumerate(panels):
        sheet.paste(Image.fromarray(pixels), (index * (SIDE + GAP), 0))
        at = (index * (SIDE + GAP) + 2, SIDE + 5)
        draw.multiline_text(at, caption, fill="#222222", font=ImageFont.load_default(14), spacing=3)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out, quality=88)


if __name__ == "__main__":
    main()
