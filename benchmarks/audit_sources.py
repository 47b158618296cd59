"""How many honest photographs an audit flags, by source: those of a calibration left out in turn, and others.

    python benchmarks/audit_sources.py --calibration FILE [--source NAME=FOLDER ...] [--count 100] [--out FOLDER]

First the sources of the calibration, each held against all others, which says what to expect for photographs of a
source that is not among them; that takes the file alone. Then those named by ``--source``, up to ``--count``
photographs of each, evenly picked, as they are and after JPEG: flagged by each source of the calibration alone, and by
all. Gaps are kept in FOLDER, and a killed run goes on. Tables are printed as Markdown, shares with exact 95 %
intervals.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from audit import QUALITY, compressed, share
from torch import Tensor

from resolute import load_scorer
from resolute.certificates.gap import Calibration
from resolute.studies.datasets import find_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--source", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--metric", default="quality-m")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=Path("runs/audit-sources"))
    given = parser.parse_args()
    calibration = Calibration.read(given.calibration)
    print(left_out(calibration, given.rate))
    if not given.source:
        return
    metric = load_scorer(given.metric)
    calibration.require(metric)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"gaps-{calibration.fingerprint}.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    gaps = {(one["source"], one["kind"], one["image"]): one for one in known}
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for name, _, folder in (text.partition("=") for text in given.source):
        photos = find_photos([folder])
        number = min(given.count, len(photos))
        for photo in (photos[i * len(photos) // number] for i in range(number)):
            for kind, change in KINDS.items():
                key = (name, kind, photo.name)
                if key not in gaps:
                    image = change(photo.read())
                    found = calibration.screening(metric, image).value
                    gaps[key] = {"gap": found, "side": calibration.screening.side(*image.shape[-2:])}
                    with path.open("a") as out:
                        out.write(json.dumps({"source": name, "kind": kind, "image": photo.name, **gaps[key]}) + "\n")
                rows.setdefault((name, kind), []).append(gaps[key])
    print(others(calibration, given.rate, rows))


KINDS: dict[str, Callable[[Tensor], Tensor]] = {"as it is": lambda image: image, f"JPEG {QUALITY}": compressed}


def left_out(calibration: Calibration, rate: float) -> str:
    """Return the table of sources that are left out in turn."""
    lines = [
        f"| source | photographs | gap, mean | sd | flagged above, by it alone | flagged by all others, at {rate:g} |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, gaps in calibration.gaps.items():
        rest = {other: own for other, own in calibration.gaps.items() if other != name}
        alone = dataclasses.replace(calibration, gaps={name: gaps}).threshold(rate)
        found = "-"
        if rest:
            most = dataclasses.replace(calibration, gaps=rest).threshold(rate)
            found = share([gap > most for gap in gaps])
        lines.append(f"| {name} | {len(gaps)} | {np.mean(gaps):.1f} | {np.std(gaps):.1f} | {alone:.1f} | {found} |")
    return "\n".join([*lines, "", f"By all: above {calibration.threshold(rate):.1f}.", ""])


def others(calibration: Calibration, rate: float, rows: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Return the table of other sources."""
    heads = [f"by {name} alone" for name in calibration.gaps]
    lines = [
        f"| photographs | | gap, mean | sd | {' | '.join(heads)} | by all | too small to tell |",
        f"|---|---|{'--:|' * (len(heads) + 4)}",
    ]
    bounds = [
        dataclasses.replace(calibration, gaps={name: own}).threshold(rate) for name, own in calibration.gaps.items()
    ]
    for (name, kind), found in rows.items():
        gaps = np.array([one["gap"] for one in found])
        told = np.array([one["side"] >= calibration.smallest for one in found])
        cells = [share(list((gaps > bound) & told)) for bound in (*bounds, calibration.threshold(rate))]
        lines.append(
            f"| {name} | {kind} | {gaps.mean():.1f} | {gaps.std():.1f} | {' | '.join(cells)} | "
            f"{int((~told).sum())}, {int(((gaps > calibration.threshold(rate)) & ~told).sum())} with such a gap |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
