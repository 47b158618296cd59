"""Make the picture of docs/faithful.md: an output, what of it the input bears out, and which pixels to trust.

    python docs/make_faithful.py [--model edsr-s] [--image motorcycle] [--out docs/images/faithful.webp]

The image is one of scikit-image's, cut to its middle and shrunk. Under each picture stands what it shows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from resolute import run
from resolute.images import to_uint8
from resolute.studies.faithful import Faithful
from resolute.studies.results import Case

SIDE, GAP, CAPTION, ACROSS = 256, 8, 28, 4
SHOWN = {
    "input": "input", "output": "output", "truth": "truth", "output, what is not trusted covered": "trusted pixels",
    "where it is added": "added, neither borne out nor refuted", "contradicts the input": "contradicts the input",
    "moved by an attack": "moved by an attack of 2/255", "error": "error",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edsr-s")
    parser.add_argument("--image", default="motorcycle")
    parser.add_argument("--out", type=Path, default=Path("docs/images/faithful.webp"))
    given = parser.parse_args()
    study = Faithful(
        models=(given.model, "bicubic"), images=("samples",), names=(given.image,), high_resolution=True, crop=SIDE
    )
    with tempfile.TemporaryDirectory() as folder:
        records = run(study, folder)
        case = next(iter(study.cases(records, Path(folder))))
    assert isinstance(case, Case)
    views = {view.label: view.pixels for view in case.views}
    rows = -(-len(SHOWN) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * (SIDE + GAP) - GAP, rows * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (label, caption) in enumerate(SHOWN.items()):
        left, top = number % ACROSS * (SIDE + GAP), number // ACROSS * (SIDE + CAPTION)
        picture = Image.fromarray(to_uint8(views[label])).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        draw.text((left + 2, top + SIDE + 5), caption, fill="#222222", font=ImageFont.load_default(14))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out, quality=85)
    print(*study.results(records).sentences, *case.facts, sep="\n")


if __name__ == "__main__":
    main()
