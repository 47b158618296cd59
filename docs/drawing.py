"""Pictures for the pages: sheets of images with captions, and charts, taken in Chromium as the tests do."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Locator, Page, sync_playwright
from plotly.offline import get_plotlyjs

IMAGES = Path(__file__).parent / "images"
# Between pictures of a sheet, and a line of a caption, in pixels.
GAP, LINE = 8, 20


def sheet(rows: Sequence[Sequence[tuple[np.ndarray, str]]], path: Path, *, side: int = 224, quality: int = 85) -> None:
    """Write rows of pictures with a caption below each; small ones are enlarged without smoothing.

    Args:
        rows: pictures ``(h, w, 3)`` in 8 bits, and their captions.
        path: of the file.
        side: width of each, in pixels.
        quality: of a lossy format.
    """
    sized = [[(enlarged(pixels, side), caption) for pixels, caption in row] for row in rows]
    tall = [max(one.height for one, _ in row) for row in sized]
    words = [5 + LINE * max(caption.count("\n") + 1 for _, caption in row) for row in sized]
    whole = Image.new("RGB", (max(map(len, rows)) * (side + GAP) - GAP, sum(tall) + sum(words)), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for row, height, below in zip(sized, tall, words, strict=True):
        for number, (picture, caption) in enumerate(row):
            left = number * (side + GAP)
            whole.paste(picture, (left, top))
            at = (left + 2, top + height + 4)
            draw.multiline_text(at, caption, fill="#222222", font=ImageFont.load_default(14), spacing=3)
        top += height + below
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, quality=quality)


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """Return a picture of a given width."""
    height = round(pixels.shape[0] * side / pixels.shape[1])
    return Image.fromarray(pixels).resize((side, height), Image.Resampling.NEAREST)


@contextlib.contextmanager
def window(width: int, height: int = 900) -> Generator[Page]:
    """Open a page in a browser."""
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()


def keep(element: Locator | Page, path: Path | str) -> None:
    """Write what an element looks like to a file; one of a mere name goes to docs/images."""
    picture = Image.open(io.BytesIO(element.screenshot()))
    picture.convert("RGB").save(IMAGES / path if isinstance(path, str) else path, quality=85)


def draw(figures: Sequence[dict[str, Any]], name: str) -> None:
    """Draw plotly's figures side by side, and write them to docs/images."""
    places = "".join(f'<div id="chart{number}"></div>' for number in range(len(figures)))
    plots = "".join(
        f'Plotly.newPlot("chart{number}", {json.dumps({**one, "config": {"staticPlot": True}})});'
        for number, one in enumerate(figures)
    )
    page_of = f'<div id="all" style="display: inline-flex">{places}</div><script>{get_plotlyjs()}</script>'
    with window(1300) as page:
        page.set_content(f"{page_of}<script>{plots}</script>")
        keep(page.locator("#all"), name)
