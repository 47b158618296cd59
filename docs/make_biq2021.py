"""Make a folder with mos.csv of the test images of BIQ2021, on which nothing here is trained.

    python docs/make_biq2021.py BIQ2021-repository --out BIQ2021

The repository of that name has the photographs in ``Images`` and their mean opinion scores in [0, 1] in a table.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

TABLE = "Test (Images and MOS).csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help="the folder with Images and the table")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with (arguments.repository / TABLE).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    (arguments.out / "Images").mkdir(parents=True, exist_ok=True)
    with (arguments.out / "mos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "mos", "split"])
        for one in rows:
            place = Path("Images") / one["Image Name"]
            shutil.copyfile(arguments.repository / place, arguments.out / place)
            writer.writerow([place.as_posix(), one["MOS"], "test"])
    print(f"{len(rows)} images")


if __name__ == "__main__":
    main()
