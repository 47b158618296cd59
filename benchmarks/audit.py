"""How many gamed images an audit flags: attacks by strength, also after JPEG.

    python benchmarks/audit.py --data CLIVE --calibration FILE [--count 30] [--out FOLDER]

``CLIVE`` is any folder with mos.csv (path, mos, split); of its test split ``--count`` photographs are attacked, evenly
picked, and audited with their originals as they are and after JPEG; benchmarks/audit_sources.py has more honest ones.
``FILE`` holds the gaps of other photographs, as `resolute audit --calibrate FOLDER --calibration FILE` writes them;
metric, defence and size are those of the calibration. The universal perturbation is made on the validation split.
Attacks get the budget in l-infinity, PGD in l2 the radius at which every value has changed by as much. Attacked images
are rounded to 8 bits. They and the rows of each calibration are kept in FOLDER, and a killed run goes on; tables are
printed as Markdown, with exact 95 % intervals.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor

from resolute import load_scorer
from resolute.attacks import IFGSM, MADC, MIFGSM, PGD, Korhonen, ScoreGain, perturbed, universal
from resolute.certificates.evasion import Unflagged
from resolute.certificates.gap import Calibration, audit
from resolute.images import from_uint8, read_image, to_uint8, write_png
from resolute.measure.fidelity import psnr_rgb
from resolute.models.fitted import resized
from resolute.runtime import tune_allocator
from resolute.training.rated import read_ratings

LEVELS = (1, 2, 4)
QUALITY = 75
UNIVERSAL = "universal"
KNOWS = "knows of the audit"
# Photographs that the universal perturbation is made on.
SEEN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--metric", default="quality-m")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--levels", type=int, nargs="*", default=LEVELS)
    parser.add_argument("--attacks", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("runs/audit-benchmark"))
    given = parser.parse_args()
    tune_allocator()
    metric, calibration = load_scorer(given.metric), Calibration.read(given.calibration)
    calibration.require(metric)
    bench = Bench(metric, calibration, given.rate, given.out)
    files = {split: [r.path for r in read_ratings(given.data) if r.split == split] for split in ("test", "val")}
    places = [i * len(files["test"]) // given.count for i in range(min(given.count, len(files["test"])))]
    for path in (files["test"][place] for place in places):
        bench.row("honest", 0, path, partial(read_image, path))
    for level in given.levels:
        for name in given.attacks or [*bench.attacks(1.0, 1), UNIVERSAL, KNOWS]:
            for path in (files["test"][place] for place in places):
                bench.row(name, level, path, partial(bench.attacked, name, level, path, files["val"]))
    print(bench.tables())


@dataclasses.dataclass
class Bench:
    """A metric, its calibration, and the rows so far."""

    metric: object
    calibration: Calibration
    rate: float
    out: Path

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows = self.out / f"rows-{self.calibration.sha256[:24]}.jsonl"
        self.done = [json.loads(line) for line in self.rows.read_text().splitlines()] if self.rows.exists() else []
        self.keys = {(row["attack"], row["level"], row["image"]) for row in self.done}
        self.shifts: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        # What is attacked is the metric as the audit asks it.
        self.alone = self.calibration.screening.alone(self.metric)

    def attacks(self, epsilon: float, size: int) -> dict[str, object]:
        """Return the attacks that do not know of the audit, at a budget, for images of so many values."""
        goal = ScoreGain(-1 if self.metric.lower_better else 1)
        within = epsilon * math.sqrt(size)
        return {
            "I-FGSM": IFGSM(epsilon=epsilon, steps=10, objective=goal),
            "PGD, l2": PGD(epsilon=within, steps=10, relative_step=0.25, norm="l2", start="tiny", objective=goal),
            "Korhonen": Korhonen(epsilon=epsilon, objective=goal),
            "MADC": MADC(epsilon=epsilon, objective=goal),
            "AMI-FGSM": MIFGSM(epsilon=epsilon, steps=10, objective=goal),
        }

    def attacked(self, name: str, level: int, path: Path, others: list[Path]) -> Tensor:
        """Return an attacked photograph, the one of a run before where there is one."""
        known = f"-{self.calibration.sha256[:24]}" if name == KNOWS else ""
        file = self.out / f"{name}-{level}{known}-{path.stem}.png"
        if not file.exists():
            write_png(file, self._attacked(name, level, path, others))
        return read_image(file)

    def _attacked(self, name: str, level: int, path: Path, others: list[Path]) -> Tensor:
        clean, epsilon = read_image(path), level / 255
        if name == UNIVERSAL:
            shift = self.shift(level, tuple(clean.shape[1:]), others)
            return perturbed(clean[None], shift)[0]
        if name == KNOWS:
            goal = Unflagged(
                self.calibration.screening, self.calibration.threshold(self.rate), -1 if self.metric.lower_better else 1
            )
            attack = PGD(epsilon=epsilon, steps=20, relative_step=0.125, start="tiny", objective=goal)
            return attack(self.metric, clean[None]).images[0]
        return self.attacks(epsilon, clean.numel())[name](self.alone, clean[None]).images[0]

    def shift(self, level: int, size: tuple[int, int], others: list[Path]) -> Tensor:
        """Return the universal perturbation for photographs of a size, made on others."""
        if (level, size) not in self.shifts:
            crops = [resized(read_image(path)[None], size)[0] for path in others[:SEEN]]
            goal = ScoreGain(-1 if self.metric.lower_better else 1)
            shift = universal(self.alone, torch.stack(crops), level / 255, steps=20, objective=goal)
            self.shifts[level, size] = shift
        return self.shifts[level, size]

    def row(self, name: str, level: int, path: Path, make: Callable[[], Tensor]) -> None:
        """Audit what is made, as it is and after JPEG, unless that is done."""
        if (name, level, path.name) in self.keys:
            return
        began = time.process_time()
        clean, image = read_image(path), make()
        found: dict[str, object] = {"attack": name, "level": level, "image": path.name}
        for kind, x in (("as it is", image), ("JPEG", compressed(image))):
            one = audit(self.metric, x, self.calibration, rate=self.rate)
            found[kind] = {"undefended": one.gap.undefended, "gap": one.gap.value, "p": one.p, "flagged": one.flagged}
        found |= {"psnr": min(float(psnr_rgb(image[None], clean[None])), 1e3), "seconds": time.process_time() - began}
        with self.rows.open("a") as file:
            file.write(json.dumps(found) + "\n")
        self.done.append(found)

    def tables(self) -> str:
        """Return the tables of rates and gains, as Markdown."""
        honest = {row["image"]: row for row in self.done if row["attack"] == "honest"}
        flagged = [share([row[kind]["flagged"] for row in honest.values()]) for kind in ("as it is", "JPEG")]
        lines = [
            f"Honest photographs flagged: {flagged[0]}; after JPEG {QUALITY}: {flagged[1]}.", "",
            f"| attack | budget | flagged | after JPEG {QUALITY} | gain | after JPEG | least gap | PSNR (dB) |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]  # fmt: skip
        sign = -1 if self.metric.lower_better else 1
        for name, level in dict.fromkeys((row["attack"], row["level"]) for row in self.done):
            own = [row for row in self.done if (row["attack"], row["level"]) == (name, level)]
            if name == "honest":
                continue
            cells = [share([row[kind]["flagged"] for row in own]) for kind in ("as it is", "JPEG")]
            for kind in ("as it is", "JPEG"):
                gains = [sign * (row[kind]["undefended"] - honest[row["image"]][kind]["undefended"]) for row in own]
                cells.append(f"{np.mean(gains):+.1f}")
            cells.append(f"{min(row['as it is']['gap'] for row in own):.1f}")
            cells.append(f"{np.mean([row['psnr'] for row in own]):.1f}")
            lines.append(f"| {name} | {level}/255 | {' | '.join(cells)} |")
        return "\n".join(lines)


def compressed(image: Tensor) -> Tensor:
    """Return an image after JPEG."""
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=QUALITY)
    return from_uint8(np.asarray(Image.open(file).convert("RGB")))


def share(found: list[bool]) -> str:
    """Return how many of several, in per cent, with the exact 95 % interval."""
    low, high = binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return f"{100 * sum(found) / len(found):.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {len(found)}"


if __name__ == "__main__":
    main()
