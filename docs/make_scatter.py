"""Make the picture of the leaderboard: ``python docs/make_scatter.py``, the chart of docs/leaderboard/index.html.

It needs Chromium, as the tests of the pages do.
"""

from __future__ import annotations

from pathlib import Path

from drawing import keep, window


def main() -> None:
    """Open the page in a browser, and keep what its chart shows."""
    with window(960) as page:
        page.goto((Path(__file__).parent / "leaderboard" / "index.html").as_uri())
        keep(page.locator(".js-plotly-plot").first, "leaderboard.webp")


if __name__ == "__main__":
    main()
