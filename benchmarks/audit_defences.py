"""Which defence tells gamed images from honest ones, on images that benchmarks/audit.py attacked.

    python benchmarks/audit_defences.py --data CLIVE --attacked FOLDER [--level 2] [--fit 384] [--defences NAME ...]

``FOLDER`` is the ``--out`` of benchmarks/audit.py. Of each defence: the gaps of the photographs that were attacked, and
of ``--honest`` more of the test split, and how many standard deviations of those the gaps of attacked images lie above.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from resolute import load_scorer
from resolute.certificates.gap import Screening
from resolute.images import read_image
from resolute.training.rated import read_ratings

DEFENCES = ("jpeg-75+size-0.85", "jpeg-75", "size-0.85", "jpeg-50", "blur-3", "resize-0.75", "noise-0.02", "noise-0.12")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--attacked", type=Path, required=True)
    parser.add_argument("--metric", default="quality-m")
    parser.add_argument("--attacks", nargs="*", default=["I-FGSM", "Korhonen"])
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--fit", type=int, default=Screening.fit)
    parser.add_argument("--honest", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--defences", nargs="*", default=DEFENCES)
    given = parser.parse_args()
    metric = load_scorer(given.metric)
    honest = [rating.path for rating in read_ratings(given.data, ("test",)) if rating.split == "test"]
    honest = honest[:: max(1, len(honest) // given.honest)][: given.honest]
    heads = "".join(f" {name} {given.level}/255, mean | sd above | share above all |" for name in given.attacks)
    print(f"| defence | honest, mean | sd | largest |{heads}\n|---|--:|--:|--:|{'--:|' * 3 * len(given.attacks)}")
    for defence in given.defences:
        screening = Screening(defence, given.fit, given.samples)

        def gaps(paths: list[Path], screening: Screening = screening) -> np.ndarray:
            return np.array([screening(metric, read_image(path), seed=0).value for path in paths])

        found = gaps(honest)
        cells = [f"{found.mean():.1f}", f"{found.std(ddof=1):.1f}", f"{found.max():.1f}"]
        for name in given.attacks:
            own = gaps(sorted(given.attacked.glob(f"{name}-{given.level}-*.png")))
            cells += [f"{own.mean():.1f}", f"{(own.mean() - found.mean()) / found.std(ddof=1):.1f}"]
            cells.append(f"{100 * (own > found.max()).mean():.0f} % of {len(own)}")
        print(f"| `{defence}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
