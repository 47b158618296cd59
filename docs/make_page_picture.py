"""Make a picture of a report page: its verdict, and one case below a divide; or of a part of it.

    resolute demo
    python docs/make_page_picture.py runs/demo/report.html --out docs/images/demo.webp
    python docs/make_page_picture.py runs/demo/report.html --case flagged --part .viewer --out docs/images/gamed.webp

Needs Playwright and a Chromium.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from drawing import keep, window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--case", default="", help="what its title contains; the first one if not given")
    parser.add_argument("--part", default="", help="a selector of CSS; what is seen first if not given")
    parser.add_argument("--height", type=int, default=1240)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with window(1240, arguments.height) as page:
        page.goto(arguments.page.resolve().as_uri())
        if arguments.case:
            titles = page.locator("#pick-case option").all_inner_texts()
            place = next(place for place, title in enumerate(titles) if arguments.case in title)
            page.locator("#pick-case").select_option(index=place)
        page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth)")
        keep(page.locator(arguments.part) if arguments.part else page, arguments.out)


if __name__ == "__main__":
    main()
