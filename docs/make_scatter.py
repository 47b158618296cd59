"""Make the picture of the leaderboard: ``python docs/make_scatter.py``, the chart of docs/leaderboard/index.html.

It needs Chromium, as the tests of the pages do.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent


def main() -> None:
    """Open the page in a browser, and keep what its chart shows."""
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 960, "height": 900})
        page.goto((DOCS / "leaderboard" / "index.html").as_uri())
        picture = Image.open(io.BytesIO(page.locator(".js-plotly-plot").first.screenshot()))
        browser.close()
    picture.convert("RGB").save(DOCS / "images" / "leaderboard.webp", quality=85)


if __name__ == "__main__":
    main()
