"""Make the picture of the README from a demo run.

    python docs/make_picture.py runs/demo --image motorcycle --budget 8 --attack ifgsm

Left to right: the input and the attacked input, enlarged; then, for the plain and the defended model, the output for
the clean and for the attacked input.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from resolute import Store, Study, load, summarize
from resolute.images import read_image, to_uint8

SIDE, GAP, CAPTION = 224, 8, 44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--image", default="motorcycle")
    parser.add_argument("--budget", type=float, default=8)
    parser.add_argument("--attack", default="ifgsm")
    parser.add_argument("--out", type=Path, default=Path("docs/images/demo.webp"))
    arguments = parser.parse_args()
    store = Store(arguments.run)
    low = next(subject.low for subject in Study.read("demo").subjects() if subject.name == arguments.image)
    chosen = [
        record
        for record in store.read()
        if (record.image, record.attack) == (arguments.image, arguments.attack)
        and round(record.epsilon * 255, 3) == arguments.budget
    ]
    assert summarize(chosen), "the run has no such cell"
    panels: list[tuple[Image.Image, str]] = []
    for record in chosen:
        attacked = read_image(store.image_path(record.key))[None]
        model = load(record.model)
        if not panels:
            panels = [(enlarged(low), "input"), (enlarged(attacked), f"attacked, {arguments.budget:g}/255")]
        with torch.no_grad():
            panels.append((picture(model(low)), f"{record.model}\nclean"))
            panels.append((picture(model(attacked)), f"{record.model}\nattacked: {record.sr_psnr:.1f} dB"))
    width = len(panels) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, SIDE + CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (panel, caption) in enumerate(panels):
        left = index * (SIDE + GAP)
        sheet.paste(panel, (left, 0))
        draw.multiline_text((left + 2, SIDE + 5), caption, fill="#222222", font=ImageFont.load_default(14), spacing=3)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out, quality=88)


def enlarged(x: torch.Tensor) -> Image.Image:
    return picture(x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))


def picture(x: torch.Tensor) -> Image.Image:
    """Return the middle of an image at its own resolution."""
    pixels = to_uint8(x[0].clamp(0, 1))
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]))


if __name__ == "__main__":
    main()
