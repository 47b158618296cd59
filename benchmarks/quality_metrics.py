"""How well quality metrics agree with people, data set by data set, and what shrinking costs.

    python benchmarks/quality_metrics.py quality-m quality-s --data CLIVE --split test --fit 0 384 256
    python benchmarks/quality_metrics.py quality-m quality-s --biq2021 BIQ2021 --count 250

``CLIVE`` is any folder with mos.csv (path, mos, split); ``BIQ2021`` a copy of the repository of that name, of whose
test split ``--count`` images are drawn by ``--seed``. Prints SROCC and PLCC with 95 % bootstrap intervals over the
images, and SROCC less that of the first metric at its first size, paired. Where a lower score is better, its sign is
turned.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch

from resolute import load_scorer
from resolute.certificates.median import prepared
from resolute.figures import Interval
from resolute.images import read_image
from resolute.measure.agreement import agreement_difference, agreement_of
from resolute.models import Scorer
from resolute.models.fitted import size_within
from resolute.provenance import provenance
from resolute.randomness import generator_for
from resolute.table import Column, Table, row
from resolute.training.rated import read_ratings

BIQ_TEST = "Test (Images and MOS).csv"

Rated = list[tuple[Path, float]]


def biq2021(folder: Path, count: int, seed: int) -> Rated:
    """Return so many of its test images, and their mean opinion scores in [0, 1]."""
    with (folder / BIQ_TEST).open(newline="", encoding="utf-8-sig") as file:
        rows = [(line["Image Name"], float(line["MOS"])) for line in csv.DictReader(file)]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [(folder / "Images" / rows[i][0], rows[i][1]) for i in sorted(chosen)]


@torch.no_grad()
def scores_of(metric: Scorer, rated: Rated, fit: int, sigma: float = 0.0, copies: int = 1) -> tuple[list[float], float]:
    """Return what a metric says of each image, the higher the better, and the seconds that an image takes.

    With ``sigma``, the median over noisy copies.
    """
    found: list[float] = []
    spent = 0.0
    for index, (path, _) in enumerate(rated):
        image = read_image(path)
        image = prepared(image, size_within(image, fit))[None]
        if sigma > 0:
            noise = torch.randn((copies, *image.shape[1:]), generator=generator_for(0, "noise", index))
            image = image + sigma * noise
        began = time.process_time()
        score = metric(image).median().item()
        spent += time.process_time() - began
        found.append(-score if metric.lower_better else score)
    return found, spent / len(rated)


def interval(value: Interval, form: str = "{:.3f}") -> str:
    return f"{form} [{form}, {form}]".format(value.mean, value.low, value.high)


def table(title: str, rated: Rated, metrics: dict[str, Scorer], sizes: list[int], sigma: float, copies: int) -> Table:
    opinions = [mos for _, mos in rated]
    columns = [
        Column("metric"), Column("longest side"), Column("SROCC"), Column("PLCC"), Column("PLCC, logistic"),
        Column("SROCC, less the first row"), Column("ms an image"),
    ]  # fmt: skip
    rows, first = [], None
    for name, metric in metrics.items():
        for fit in sizes:
            scores, seconds = scores_of(metric, rated, fit, sigma, copies)
            found = agreement_of(scores, opinions)
            less = "" if first is None else interval(agreement_difference(scores, first, opinions), "{:+.3f}")
            first = first or scores
            facts = [interval(value) for value in (found.srocc, found.plcc, found.plcc_logistic)]
            rows.append(row(name, str(fit or "as it is"), *facts, less, f"{1000 * seconds:.0f}"))
    return Table(f"{title}, {len(rated)} images", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="+", help="names or files")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders with mos.csv")
    parser.add_argument("--split", nargs="*", default=["test"], help="of those folders")
    parser.add_argument("--every", type=int, default=1, help="take each n-th image of those folders only")
    parser.add_argument("--biq2021", type=Path, help="a copy of the repository BIQ2021")
    parser.add_argument("--count", type=int, default=250, help="images of the test split of BIQ2021")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--fit", type=int, nargs="*", default=[0], help="longest sides to shrink to; 0 for none")
    parser.add_argument("--sigma", type=float, default=0.0, help="of noise, whose median score then counts")
    parser.add_argument("--copies", type=int, default=7, help="with noise")
    arguments = parser.parse_args()
    sets: dict[str, Rated] = {}
    for folder in arguments.data:
        ratings = [one for one in read_ratings(folder, arguments.split) if one.split in arguments.split]
        rated = [(one.path, one.mos) for one in ratings[:: arguments.every]]
        sets[f"{folder.name} ({', '.join(arguments.split)})"] = rated
    if arguments.biq2021:
        sets["BIQ2021 (test)"] = biq2021(arguments.biq2021, arguments.count, arguments.seed)
    print(f"{provenance().hardware}, {torch.get_num_threads()} threads")
    metrics = {name: load_scorer(name) for name in arguments.metrics}
    for title, rated in sets.items():
        found = table(title, rated, metrics, arguments.fit, arguments.sigma, arguments.copies)
        print(f"\n{found.markdown()}", flush=True)


if __name__ == "__main__":
    main()
