"""Make the folder that quality-m learns from: all photographs of LIVE In the Wild, with one split for all metrics.

    python docs/make_clive.py ChallengeDB_release --keep CLIVE/mos.csv --out clive-all

The split of ``--keep``, the mos.csv that the other metrics are trained and judged with, stays; of the images which that
table lacks, 100 chosen by a fixed seed go to val and all others to train. So no metric sees an image of the test split.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from pathlib import Path

import scipy.io

HELD_OUT, SEED = 100, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="the folder with Images and Data")
    parser.add_argument("--keep", type=Path, required=True, help="a mos.csv whose split is kept")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    def column(name: str) -> list:
        return scipy.io.loadmat(arguments.release / "Data" / f"{name}_release.mat")[f"{name}_release"].ravel().tolist()

    names = [str(name[0]) for name in column("AllImages")]
    scores = dict(zip(names, zip(column("AllMOS"), column("AllStdDev"), strict=True), strict=True))
    with arguments.keep.open(newline="", encoding="utf-8") as file:
        splits = {Path(line["path"]).name: line["split"] for line in csv.DictReader(file)}
    # The first seven were shown to the observers for practice, and lie in a folder of their own.
    files = {path.name: path for path in (arguments.release / "Images").iterdir() if path.name in scores}
    rest = sorted(files.keys() - splits.keys())
    random.Random(SEED).shuffle(rest)
    splits |= {name: "val" if place < HELD_OUT else "train" for place, name in enumerate(rest)}
    (arguments.out / "Images").mkdir(parents=True, exist_ok=True)
    with (arguments.out / "mos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "mos", "std", "split"])
        for name, split in splits.items():
            shutil.copyfile(files[name], arguments.out / "Images" / name)
            writer.writerow([f"Images/{name}", *scores[name], split])
    print({split: list(splits.values()).count(split) for split in ("train", "val", "test")})


if __name__ == "__main__":
    main()
