"""Tune published networks for smoothing, and certify them: what docs/restoration.md says of them.

    python docs/make_smoothed.py ID CLONE --data PHOTOS --images BSD100 --out RUNS
    python docs/make_smoothed.py --gather RUNS

The first form takes the network ID of docs/leaderboard/networks.toml from a clone of its source, and tunes it by
``resolute harden --method noise --clean-loss 0``. What comes out is kept near bicubic interpolation, smoothed, and
certified by docs/studies/certified-smoothed.toml; the network as published is attacked on the same images by PGD of the
same l2 radii. A killed run goes on.

The second one takes the finished runs below RUNS into docs/certified/networks.json, from which docs/make_restoration.py
makes its table. Intervals are 95 % bootstrap intervals over images, 10,000 resamples, seed 0, of differences paired by
image.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from make_hardening import parser_of, signed, told
from torch import Tensor

from resolute.attacks import PGD
from resolute.defences import load_defended
from resolute.engine.running import plan_of, run
from resolute.engine.store import Store
from resolute.files import write_text
from resolute.leaderboard.network import read_networks
from resolute.measure.fidelity import psnr_rgb
from resolute.measure.intervals import Interval, bootstrap_mean
from resolute.models.address import parse_address
from resolute.models.base import Restorer
from resolute.runtime import tune_allocator
from resolute.studies.kinds import read_study
from resolute.studies.restoration import Restoration
from resolute.studies.restored import RestorationRecord
from resolute.table import Column, Table, row
from resolute.training.hardening import harden

DOCS = Path(__file__).parent
FIGURES = DOCS / "certified" / "networks.json"
CONFINED = "+confine=0.08"
STEPS, ATTACK_STEPS = 400, 50
# What is asked: dB of certified SR-PSNR above what attacks leave of the network as published, for so much clean PSNR.
GAIN, PRICE, RADIUS = 5.0, 0.3, 0.05


def main() -> None:
    """Do one of both."""
    asked = told(parser_of(__doc__, STEPS))
    if asked.gather is not None:
        gather(asked.gather)
        return
    tune_allocator()
    out, data, images = asked.out, asked.data, asked.images
    address = read_networks(DOCS / "leaderboard" / "networks.toml")[asked.id].address
    made = harden(
        address, data, out / f"{asked.id}-training", methods=["noise"], steps=asked.steps, clean_loss=0.0, tested=1
    )
    study = read_study(DOCS / "studies" / "certified-smoothed.toml")
    assert isinstance(study, Restoration)
    place = str(parse_address(address).holding(made.weights)) + CONFINED
    study = dataclasses.replace(study, images=(f"bsd100={images}",), models=(place,))
    before = out / f"{asked.id}-before.json"
    if not before.is_file():
        write_text(before, json.dumps(as_published(address, study), indent=1) + "\n")
    run(plan_of(study), out / asked.id)


def as_published(address: str, study: Restoration) -> dict[str, Any]:
    """Return clean PSNR of a network as published, and the SR-PSNR that l2-PGD leaves of it, image by image."""
    model = load_defended(address, study.scale)
    clean: dict[str, float] = {}
    left: dict[str, dict[str, float]] = {f"{epsilon:g}": {} for epsilon in study.epsilons}
    for subject in study.subjects():
        assert subject.truth is not None
        with torch.no_grad():
            clean[subject.name] = round(float(psnr_rgb(model(subject.low), subject.truth)), 4)
        for epsilon in study.epsilons:
            left[f"{epsilon:g}"][subject.name] = round(left_by_pgd(model, subject.low, epsilon, ATTACK_STEPS), 4)
    return {"clean": clean, "left": left}


def left_by_pgd(model: Restorer, low: Tensor, epsilon: float, steps: int) -> float:
    """Return the SR-PSNR that l2-PGD leaves of an image.

    The attacked image is not rounded to 8 bits, which such radii would not survive.
    """
    moved = PGD(epsilon=epsilon, norm="l2", steps=steps)(model, low).unrounded
    with torch.no_grad():
        return float(psnr_rgb(model(low), model(moved)))


def gather(runs: Path) -> None:
    """Take finished runs in, and what was measured of networks as published."""
    known: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    for before in sorted(runs.glob("*-before.json")):
        id = before.name.removesuffix("-before.json")
        store = Store(runs / id)
        records = [one for one in store.read() if isinstance(one, RestorationRecord)]
        if not records or len(records) < len(store.order()):
            known.setdefault(id, json.loads(before.read_text()))
            continue
        plan = json.loads((runs / f"{id}-training" / "plan.json").read_text())
        steps = plan["planned"]["optimizer"]["steps"]
        first = records[0]
        known[id] = json.loads(before.read_text()) | {
            "smoothed": {one.image: one.mean_psnr for one in records},
            "certified": {
                f"{epsilon:g}": {one.image: one.certified_mean for one in records if one.epsilon == epsilon}
                for epsilon in sorted({one.epsilon for one in records})
            },
            "sigma": first.sigma, "copies": first.copies, "alpha": first.alpha, "steps": steps,
            "minutes": round(steps * plan["seconds_per_step"] / 60),
            "hardware": store.facts()["provenance"]["hardware"],
        }  # fmt: skip
    write_text(FIGURES, json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def published() -> tuple[str, Table]:
    """Return what came out for published networks, in words and as a table."""
    known: dict[str, Any] = json.loads(FIGURES.read_text())
    found = {id: one for id, one in known.items() if "certified" in one}
    networks = read_networks(DOCS / "leaderboard" / "networks.toml")
    columns = [
        Column("network"), Column("family"), Column("clean PSNR as published", "dB"),
        Column("tuned and smoothed", "dB"), Column("difference", "dB"),
        Column("empirical: what l2-PGD leaves as published", "dB", digits=1),
        Column("certified, tuned and smoothed", "dB", digits=1), Column("certified above it", "dB"),
        Column("at 0.01: empirical", "dB", digits=1), Column("certified", "dB", digits=1), Column("goal met"),
    ]  # fmt: skip
    rows, met = [], []
    for id, one in found.items():
        lost = difference(one["clean"], one["smoothed"])
        left, kept = (one[name][f"{RADIUS:g}"] for name in ("left", "certified"))
        gained = difference(left, kept)
        enough = gained.mean >= GAIN and lost.mean >= -PRICE
        met += [networks[id].title] * enough
        small = [mean_of(one[name]["0.01"]) for name in ("left", "certified")]
        rows.append(
            row(
                networks[id].title, networks[id].family, mean_of(one["clean"]), mean_of(one["smoothed"]), signed(lost),
                mean_of(left), mean_of(kept), signed(gained), *small, enough,
            )
        )  # fmt: skip
    first = next(iter(found.values()))
    caption = (
        f"Means over {len(first['clean'])} images of BSD100, their middle 64 x 64 pixels shrunk to 16 x 16; radius "
        f"{RADIUS:g} (l2), \u03c3 = {first['sigma']:g}, {first['copies']:,} copies, \u03b1 = {first['alpha']:g}, seed "
        "0."
    )
    words = (
        f"Networks of others, tuned by `resolute harden --method noise --clean-loss 0 --steps {first['steps']}` on "
        f"BSDS400 and smoothed: the goal is met by {len(met)} of {len(found)}. PGD (l2, {ATTACK_STEPS} steps) attacks "
        "each as published, without noise. Made by `python docs/make_smoothed.py` from "
        f"[`certified-smoothed.toml`](studies/certified-smoothed.toml) on {first['hardware']}."
    )
    others = {networks[id].title: mean_of(one["left"][f"{RADIUS:g}"]) for id, one in known.items() if id not in found}
    if others:
        named = ", ".join(f"{title} {kept:.1f}" for title, kept in sorted(others.items(), key=lambda pair: pair[1]))
        words += (
            " Networks of which the attack leaves little were taken, since what can be certified hardly depends on the "
            f"network: of others that it was tried on, and that were not certified, it leaves, in dB, {named}."
        )
    return words, Table("", columns, rows, caption=caption)


def difference(before: dict[str, float], after: dict[str, float]) -> Interval:
    """Return by how much figures grew, paired by image."""
    return bootstrap_mean([after[image] - value for image, value in before.items()])


def mean_of(values: dict[str, float]) -> float:
    """Return the mean over images."""
    return statistics.fmean(values.values())


if __name__ == "__main__":
    main()
