"""Harden published networks and put them through the standard suite: what docs/harden.md says of ten of them.

    python docs/make_hardening.py ID CLONE --data PHOTOS --images BSD100 --out RUNS
    python docs/make_hardening.py --gather RUNS

The first form takes the network ID of docs/leaderboard/networks.toml from a clone of its source. It is hardened by
``resolute harden --precision mixed``, with ``--even`` also told ``--clean-loss 0``, and by the method ``plain`` for as
many steps and without that limit. The hardened network goes through the standard suite; the other, and the mixture with
bicubic interpolation whose clean PSNR on the suite's images is the hardened network's, through its two strongest
attacks at 4/255. The hardened one also goes through the studies hardened-adaptive.toml and, as the network before does,
hardened-beyond.toml in docs/studies, and both are measured on inputs with noise and JPEG. A killed run goes on.
Processes that work on different networks do not disturb each other.

The second one takes the finished runs below RUNS into docs/hardening/records.parquet, and writes the tables of the page
again from all records there and those of the undefended networks in the leaderboard. Intervals are 95 % bootstrap
intervals over images, 10,000 resamples, seed 0, of differences paired by image.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resolute.attacks.registry import AttackTable
from resolute.corruptions import encoded
from resolute.defences import load_defended, match_clean_psnr
from resolute.defences.calibration import clean_psnr
from resolute.defences.wrappers import Mixture
from resolute.engine.queue import Machine
from resolute.engine.running import plan_of, run
from resolute.errors import ConfigError
from resolute.files import write_text
from resolute.images import from_uint8, to_uint8
from resolute.leaderboard.compact import Run, read_runs, write_runs
from resolute.leaderboard.network import read_networks
from resolute.measure.fidelity import psnr_y
from resolute.measure.intervals import Interval, bootstrap_mean
from resolute.models.address import parse_address
from resolute.models.base import Restorer
from resolute.provenance import Provenance
from resolute.report.reading import read_source
from resolute.runtime import tune_allocator
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study
from resolute.studies.summary import HEADLINE, WORST, worst_case
from resolute.training.hardening import harden

DOCS = Path(__file__).parent
RECORDS = DOCS / "hardening" / "records.parquet"
CORRUPTED = RECORDS.with_name("corrupted.json")
LEADERBOARD = DOCS / "leaderboard"
NETWORKS = (
    "carn-m", "rnet", "rfdn-aim", "srgan", "2022-04_RLFN", "2022-18_RFDNFINALB5", "2022-03_FMEN", "2022-20_MobileSR",
    "2024-22_GFMN", "2025-51_SPAN",
)  # fmt: skip
FORMS = ("hardened", "even", "plain", "mixture", "adaptive", "beyond", "beyond-before")
STEPS = 2000
FIELDS = ("attacked_psnr_y", "sr_psnr")
# Other budgets: where they were measured, in levels, and in words.
BEYOND = (
    ("suite", 1, "attacked, 1/255"), ("suite", 8, "attacked, 8/255"), ("beyond", 16, "attacked, 16/255"),
    ("beyond", 111, "attacked, l2 of 2/255 a value"),
)  # fmt: skip
# What is done to the low-resolution images: standard deviation of noise in levels of 255, and quality of JPEG.
NOISE, JPEG = (2, 8), (90, 50)


def parser_of(doc: str | None, steps: int) -> argparse.ArgumentParser:
    """Return what parses the options of scripts that tune a published network, or gather what they did."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", nargs="?")
    for name in ("clone", "--data", "--images", "--out", "--gather"):
        parser.add_argument(name, type=lambda given: Path(given).resolve(), **({} if "-" in name else {"nargs": "?"}))
    parser.add_argument("--steps", type=int, default=steps)
    return parser


def told(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what was asked, in the folder of the clone, to which the addresses of the leaderboard are relative."""
    asked = parser.parse_args()
    if asked.gather is None:
        if not (asked.id and asked.clone and asked.data and asked.images and asked.out):
            parser.error("a network, a clone of its source, --data, --images and --out; or --gather")
        os.chdir(asked.clone)
    return asked


def main() -> None:
    """Do one of both."""
    parser = parser_of(__doc__, STEPS)
    parser.add_argument("--address", help="instead of the leaderboard's, where one's own code builds the network")
    parts = ("hardened", "plain", "mixture", "beyond")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="of all that is measured")
    parser.add_argument("--even", action="store_true", help="let all patches weigh alike")
    parser.add_argument("--device", default="cpu")
    asked = told(parser)
    if asked.gather is not None:
        gather(asked.gather)
        return
    tune_allocator()
    out, data, images = asked.out, asked.data, asked.images
    address = asked.address or read_networks(LEADERBOARD / "networks.toml")[asked.id].address
    places = {}
    hardened = "even" if asked.even else "hardened"
    wanted = [hardened if part == "hardened" else part for part in asked.only]
    for form in (hardened, "plain"):
        if form in wanted or (form == hardened and wanted != ["plain"]):
            made = harden(
                address, data, out / f"{asked.id}-{form}-training", methods=["plain"] if form == "plain" else None,
                steps=asked.steps, clean_loss=None if form == "hardened" else 0.0, tested=1, precision="mixed",
                device=asked.device,
            )  # fmt: skip
            places[form] = str(parse_address(address).holding(made.weights))
    suite = read_study("sr-linf-1")
    assert isinstance(suite, Grid)
    suite = dataclasses.replace(suite, images=(f"bsd100={images}",))
    if "mixture" in wanted:
        theta = share(load_defended(address), load_defended(places[hardened]), suite)
        if theta < 1:
            places["mixture"] = f"{address}+mix={theta:.4f}"
    # What the networks to compare with go through flatters them if anything.
    strongest = tuple(attack for attack in suite.attacks if (attack.kind, attack.epsilons) == ("apgd", (HEADLINE,)))
    assert len(strongest) == 2, "the output and the truth"
    short = dataclasses.replace(suite, attacks=strongest, epsilons=(HEADLINE,))
    for form, place in places.items():
        if form not in wanted:
            continue
        plan = plan_of(dataclasses.replace(suite if form == hardened else short, models=(place,)))
        run(plan, out / f"{asked.id}-{form}", Machine(device=asked.device))
    if "beyond" not in wanted:
        return
    after = places[hardened]
    for form, place in (("adaptive", after), ("beyond", after), ("beyond-before", address)):
        plan = plan_of(template(form.removesuffix("-before"), place, address, suite.images))
        run(plan, out / f"{asked.id}-{form}", Machine(device=asked.device))
    figures = {form: corrupted(load_defended(one), suite) for form, one in (("before", address), ("after", after))}
    write_text(out / f"{asked.id}-corrupted.json", json.dumps(figures, indent=1) + "\n")


def template(name: str, place: str, before: str, images: tuple[str, ...]) -> Grid:
    """Return a study of the hardened networks, about one of them."""
    study = read_study(DOCS / "studies" / f"hardened-{name}.toml")
    assert isinstance(study, Grid)
    attacks = tuple(
        AttackTable(one.kind, label=one.label, source=before) if "source" in one.options else one
        for one in study.attacks
    )
    return dataclasses.replace(study, models=(place,), images=images, attacks=attacks)


def corrupted(model: Restorer, suite: Grid) -> dict[str, list[float]]:
    """Return the PSNR of a model on images with noise and JPEG, on Y, image by image."""
    found: dict[str, list[float]] = {}
    for number, subject in enumerate(suite.subjects()):
        low = subject.low
        noise = torch.randn(low.shape, generator=torch.Generator().manual_seed(number))
        inputs = {"as it is": low}
        inputs |= {f"noise of {sigma}/255": to_8_bit(low + noise * sigma / 255) for sigma in NOISE}
        inputs |= {f"JPEG, quality {quality}": through_jpeg(low, quality) for quality in JPEG}
        for name, x in inputs.items():
            with torch.no_grad():
                value = psnr_y(model(x), subject.truth, border=model.scale)
            found.setdefault(name, []).append(round(float(value), 4))
    return found


def to_8_bit(images: Tensor) -> Tensor:
    """Return images on the 8-bit grid."""
    return (images.clamp(0, 1) * 255).round() / 255


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Return one image as JPEG has it."""
    return from_uint8(encoded(to_uint8(images[0]), "JPEG", quality))[None]


def share(before: Restorer, after: Restorer, suite: Grid) -> float:
    """Return the share of a network in the mixture with bicubic that has the clean PSNR of the hardened one."""
    pairs = [(subject.low, subject.truth) for subject in suite.subjects() if subject.truth is not None]
    with torch.no_grad():
        target = clean_psnr(after, pairs)
        try:
            return match_clean_psnr(lambda theta: Mixture(before, theta), pairs, target, 0.0, 1.0)
        except ConfigError:
            return 1.0 if target > clean_psnr(before, pairs) else 0.0


def gather(runs: Path) -> None:
    """Take finished runs in, and write the table of the page."""
    known = read_runs(RECORDS) if RECORDS.is_file() else {}
    seconds = json.loads(RECORDS.with_name("training.json").read_text()) if known else {}
    damaged = json.loads(CORRUPTED.read_text()) if CORRUPTED.is_file() else {}
    for id in NETWORKS:
        for form in FORMS:
            folder = runs / f"{id}-{form}"
            try:
                source = read_source(folder)
            except ConfigError:  # not begun
                continue
            records = [record for record in source.records if isinstance(record, AttackRecord)]
            if len(records) < len(source.store.order()):
                print(f"left out: {folder.name} is not finished")
                continue
            how = source.provenance
            made = None if how is None else Provenance("resolute benchmark", how.date, how.versions, how.hardware)
            known[f"{id}:{form}"] = Run(records, made)
        corruptions = runs / f"{id}-corrupted.json"
        if corruptions.is_file():
            damaged[id] = json.loads(corruptions.read_text())
        for form in ("hardened", "even"):
            training = runs / f"{id}-{form}-training" / "plan.json"
            if training.is_file() and f"{id}:{form}" in known:
                plan = json.loads(training.read_text())
                steps = plan["planned"]["optimizer"]["steps"]
                minutes = round(steps * plan["seconds_per_step"] / 60, 1)
                seconds[f"{id}:{form}"] = {"steps": steps, "minutes": minutes}
    RECORDS.parent.mkdir(exist_ok=True)
    write_runs(RECORDS, known)
    write_text(RECORDS.with_name("training.json"), json.dumps(seconds, indent=1, sort_keys=True) + "\n")
    write_text(CORRUPTED, json.dumps(dict(sorted(damaged.items())), indent=1) + "\n")
    page = DOCS / "harden.md"
    text = page.read_text("utf-8")
    before = read_runs(LEADERBOARD / "records.parquet")
    for name, table in (
        ("networks", lines(known, before, seconds)),
        ("adaptive", adaptive_lines(known)),
        ("beyond", beyond_lines(known, before, damaged)),
    ):
        marks = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        shown = "\n".join(table)
        text = marks.sub(lambda marked, shown=shown: f"{marked[1]}{shown}\n{marked[2]}", text)
    write_text(page, text)


def worst(run: Run, level: float = HEADLINE) -> dict[str, AttackRecord]:
    """Return the worst that attacks of a budget, in levels, leave of each image."""
    found = [record for record in worst_case(run.records) if record.attack == WORST]
    return {record.image: record for record in found if round(record.epsilon * 255, 6) == level}


def lines(hardened: dict[str, Run], before: dict[str, Run], trained: dict[str, dict[str, float]]) -> list[str]:
    """Return the table of the page."""
    networks = read_networks(LEADERBOARD / "networks.toml")
    found = [
        "| network | family | clean PSNR | attacked, against the original | plain | mixture | SR-PSNR | minutes |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for id, made in ((id, f"{id}:{form}") for id in NETWORKS for form in ("even", "hardened")):
        if made not in hardened:
            continue
        start, end = worst(before[id]), worst(hardened[made])
        clean, truth, kept = (changed(start, end, field) for field in ("clean_psnr_y", *FIELDS))
        beside = [
            f"{mean(worst(hardened[f'{id}:{form}']), 'attacked_psnr_y').mean:.2f}"
            if f"{id}:{form}" in hardened
            else "-"
            for form in ("plain", "mixture")
        ]
        network = networks[id]
        minutes = trained.get(made, {}).get("minutes", 0)
        title = network.title if made.endswith("hardened") else rf"{network.title}\*"
        cells = [title, network.family, clean, truth, *beside, kept, f"{minutes:.0f}"]
        found.append(f"| {' | '.join(cells)} |")
    bicubic = worst(before["bicubic"])
    clean, truth, kept = (
        f"{mean(bicubic, field).mean:.2f}" for field in ("clean_psnr_y", "attacked_psnr_y", "sr_psnr")
    )
    found.append(f"| bicubic | | {clean} | {truth} | - | - | {kept} | |")
    return found


def adaptive_lines(hardened: dict[str, Run]) -> list[str]:
    """Return the table of attackers who adapt: what the suite leaves of five images, and what these do."""
    shown = [id for id in NETWORKS if f"{id}:adaptive" in hardened]
    found = header("attack", shown)
    runs = [hardened[f"{id}:adaptive"] for id in shown]
    images = {one.image for run in runs for one in run.records}
    rows = {
        "the suite's worst": [
            {image: record for image, record in worst(measured(hardened, id)).items() if image in images}
            for id in shown
        ]
    }
    for table in template("adaptive", "bicubic", "bicubic", ("bsd100",)).attacks:
        rows[table.label] = [{one.image: one for one in run.records if one.attack == table.label} for run in runs]
    rows["the worst of these"] = [worst(run) for run in runs]
    for name, row in rows.items():
        cells = [" / ".join(f"{mean(records, field).mean:.2f}" for field in FIELDS) for records in row]
        found.append(f"| {name} | {' | '.join(cells)} |")
    return found


def measured(hardened: dict[str, Run], id: str) -> Run:
    """Return the suite's run of the network that the other attackers were set on."""
    weights = hardened[f"{id}:adaptive"].records[0].weights
    return next(
        run
        for run in (hardened.get(f"{id}:{form}") for form in ("hardened", "even"))
        if run is not None and run.records[0].weights == weights
    )


def beyond_lines(hardened: dict[str, Run], before: dict[str, Run], damaged: dict[str, Any]) -> list[str]:
    """Return the table of what else hardening bought or paid: other budgets, another norm, noise and JPEG."""
    shown = [id for id in NETWORKS if f"{id}:beyond" in hardened]
    found = header("input", shown)
    for form, level, name in BEYOND:
        cells: list[str] = []
        for id in shown:
            if form == "suite":
                start, end = worst(before[id], level), worst(measured(hardened, id), level)
            else:
                start, end = (at(hardened[f"{id}:{one}"], level) for one in ("beyond-before", "beyond"))
            cells.append(changed(start, end, "attacked_psnr_y"))
        found.append(f"| {name} | {' | '.join(cells)} |")
    for name in next(iter(damaged.values()), {"before": {}})["before"]:
        cells = []
        for id in shown:
            start, end = damaged[id]["before"][name], damaged[id]["after"][name]
            gained = bootstrap_mean([b - a for a, b in zip(start, end, strict=True)])
            cells.append(f"{bootstrap_mean(start).mean:.2f} → {bootstrap_mean(end).mean:.2f} ({signed(gained)})")
        found.append(f"| {name} | {' | '.join(cells)} |")
    return found


def header(first: str, shown: list[str]) -> list[str]:
    """Return the first two lines of a table with a column a network."""
    networks = read_networks(LEADERBOARD / "networks.toml")
    titles = [networks[id].title for id in shown]
    return [f"| {' | '.join([first, *titles])} |", f"|---|{'--:|' * len(shown)}"]


def at(run: Run, level: float) -> dict[str, AttackRecord]:
    """Return the records of one budget, of which there is one an image."""
    return {record.image: record for record in run.records if round(record.epsilon * 255, 6) == level}


def signed(gained: Interval) -> str:
    """Return a difference with its interval."""
    return f"{gained.mean:+.2f} [{gained.low:.2f}, {gained.high:.2f}]"


def changed(before: dict[str, AttackRecord], after: dict[str, AttackRecord], field: str) -> str:
    """Return a mean before and after, and the mean difference with its interval."""
    return f"{mean(before, field).mean:.2f} → {mean(after, field).mean:.2f} ({gain(before, after, field)})"


def mean(records: dict[str, AttackRecord], field: str) -> Interval:
    """Return the mean over the images."""
    return bootstrap_mean([getattr(record, field) for record in records.values()])


def gain(before: dict[str, AttackRecord], after: dict[str, AttackRecord], field: str) -> str:
    """Return the mean difference with its interval."""
    found = bootstrap_mean([getattr(after[image], field) - getattr(before[image], field) for image in sorted(before)])
    return signed(found)


if __name__ == "__main__":
    main()
