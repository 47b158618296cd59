"""Pictures of charts for the pages, taken in Chromium as the tests of the pages do."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright
from plotly.offline import get_plotlyjs

IMAGES = Path(__file__).parent / "images"


@contextlib.contextmanager
def window(width: int) -> Generator[Page]:
    """Open a page in a browser."""
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": width, "height": 900})
        browser.close()


def keep(element: Locator, name: str) -> None:
    """Write what an element looks like to docs/images."""
    picture = Image.open(io.BytesIO(element.screenshot()))
    picture.convert("RGB").save(IMAGES / name, quality=85)


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
