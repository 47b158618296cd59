"""A study of many cells with made-up answers: what planning, resuming, reporting and asking take, and how much memory.

    python benchmarks/scale.py --images 500 --work runs/scale

Ten tiny models, five attacks and four budgets: 200 cells an image. Every phase has a process of its own, since a peak
does not come down again. The figures of the answers are random, from seed 0; their pictures have 8 x 8 pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import torch

from resolute import Grid
from resolute.attacks.registry import AttackTable
from resolute.engine.plan import Plan
from resolute.engine.query import query
from resolute.engine.queue import Queue
from resolute.engine.running import plan_of, run
from resolute.engine.store import Store, append_line
from resolute.images import write_png
from resolute.models import EDSR, Card
from resolute.models.weights import save_model
from resolute.provenance import provenance
from resolute.report.page import write_markdown, write_page
from resolute.studies.attacked import AttackCell, AttackRecord
from resolute.studies.record import SCHEMA
from resolute.studies.study import about

MODELS, SIDE, SCALE = 10, 32, 2
ATTACKS = ("fgsm", "ifgsm", "mifgsm", "pgd", "fda")
EPSILONS = (1, 2, 4, 8)
PHASES = ("plan", "answer", "resume", "resume half", "finished", "markdown", "page", "query", "parquet", "of parquet")
# So often the records are written to Parquet, with other keys: 100,000 become 10 million.
TIMES = 100


def prepare(work: Path, images: int) -> None:
    """Write models and images."""
    for number in range(MODELS):
        torch.manual_seed(number)
        model = EDSR(scale=SCALE, blocks=1, channels=4, upsampler="direct")
        name = f"net-{number}"
        save_model(model, work / f"{name}.safetensors", Card(name=name, architecture=model.arguments(), scale=SCALE))
    noise = torch.Generator().manual_seed(0)
    for number in range(images):
        write_png(work / "images" / f"{number:06}.png", torch.rand(3, SIDE, SIDE, generator=noise))


def study_in(work: Path) -> Grid:
    return Grid(
        name="scale",
        models=tuple(str(work / f"net-{number}.safetensors") for number in range(MODELS)),
        attacks=tuple(AttackTable(kind=kind) for kind in ATTACKS),
        epsilons=EPSILONS,
        images=(str(work / "images"),),
        scale=SCALE,
    )


def made_up(cell: AttackCell, random: np.random.Generator) -> AttackRecord:
    """A record with figures as they could be."""
    assert cell.model.card is not None
    clean, attacked = 26 + 3 * random.random(), 10 + 15 * random.random()
    values = dict.fromkeys(("lr_psnr", "sr_psnr", "sr_psnr_unrounded", "sr_psnr_y"), attacked + 1)
    values |= dict.fromkeys(("clean_ssim_y", "attacked_ssim_y", "sr_ssim"), random.random())
    values |= dict.fromkeys(("phi_mean", "phi_std", "attacked_phi_mean", "attacked_phi_std", "phi_moved"), 1.0)
    return AttackRecord(
        **about(cell, cell.model.card, cell.subject.name, cell.subject.low[0], cell.seed),
        seconds=1.0,
        files=(f"attacked/{cell.key}.png",),
        attack=cell.label,
        configuration=repr(cell.attack),
        epsilon=cell.attack.epsilon,
        clean_psnr_y=clean,
        attacked_psnr_y=attacked,
        phi_range=1.0,
        attacked_phi_range=1.0,
        linf=cell.attack.epsilon * 255,
        gradients=10,
        **values,
    )


def answer(plan: Plan, folder: Path) -> None:
    """Write an answer to every cell, and its picture."""
    random = np.random.default_rng(0)
    write_png(folder / "one.png", torch.zeros(3, 8, 8))
    picture = (folder / "one.png").read_bytes()
    (folder / "attacked").mkdir()
    for begin in range(0, len(plan.cells), 1000):
        records = [made_up(cell, random) for cell in plan.cells[begin : begin + 1000] if isinstance(cell, AttackCell)]
        append_line(folder / "records.jsonl", *[record.as_line() for record in records])
        for record in records:
            (folder / record.files[0]).write_bytes(picture)
    facts = {"schema": SCHEMA, "kind": plan.study.kind, "study": dataclasses.asdict(plan.study)}
    facts |= {"provenance": dataclasses.asdict(provenance()), "facts": {}, "cells": [cell.key for cell in plan.cells]}
    Store(folder).write_facts(facts)


def halved(folder: Path) -> Path:
    """A folder with every second record of another."""
    half = folder.with_name("half")
    half.mkdir(exist_ok=True)
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (half / "records.jsonl").write_bytes(b"".join(lines[::2]))
    if not (half / "attacked").is_symlink():
        (half / "attacked").symlink_to((folder / "attacked").resolve())
    return half


def to_parquet(folder: Path, out: Path) -> str:
    """Write the records to Parquet, a folder for each model, ``TIMES`` times over."""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1; SET memory_limit = '1GB'; SET preserve_insertion_order = false")
        connection.execute(
            "COPY (SELECT r.* REPLACE (hash(r.key, again)::VARCHAR AS key) "
            "FROM read_json(?, format='newline_delimited') r, range(?) t(again)) "
            f"TO '{out}' (FORMAT parquet, PARTITION_BY (model), OVERWRITE_OR_IGNORE)",
            [str(folder / "records.jsonl"), TIMES],
        )
    size = sum(file.stat().st_size for file in out.rglob("*.parquet"))
    return f"{size / 1e6:.0f} MB"


def of_parquet(out: Path) -> str:
    """Ask all rows for means, and one partition for its worst cases."""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1; SET memory_limit = '1GB'")
        rows = f"read_parquet('{out}/**/*.parquet', hive_partitioning = true)"
        found = connection.sql(
            f"SELECT model, attack, epsilon, count(*), avg(sr_psnr), avg(attacked_psnr_y) FROM {rows} GROUP BY ALL"
        ).fetchall()
        worst = connection.sql(f"SELECT image, min(sr_psnr) FROM {rows} WHERE model = 'net-3' GROUP BY ALL").fetchall()
    return f"{sum(row[3] for row in found)} rows, {len(found)} means, {len(worst)} minima"


def measure(phase: str, work: Path) -> dict[str, object]:
    """Run one phase, and return what it took."""
    folder = work / "study"
    plan = plan_of(study_in(work)) if phase in ("answer", "resume", "resume half", "finished") else None
    half = halved(folder) if phase == "resume half" else folder
    began, spent = time.perf_counter(), time.process_time()
    told: object = ""
    if phase == "plan":
        plan = plan_of(study_in(work))
        told = len(plan.units((), 1))
    elif phase == "answer":
        assert plan is not None
        answer(plan, folder)
    elif phase in ("resume", "resume half"):
        assert plan is not None
        queue = Queue(plan, half, 1)
        task = queue.take()
        told = len(queue) + (task is not None)
        queue.close()
    elif phase == "finished":
        assert plan is not None
        told = len(run(plan, folder))
    elif phase == "markdown":
        told = write_markdown([folder], work / "tables.md").stat().st_size
    elif phase == "page":
        told = write_page([folder], work / "report.html").stat().st_size
    elif phase == "parquet":
        told = to_parquet(folder, work / "parquet")
    elif phase == "of parquet":
        told = of_parquet(work / "parquet")
    else:
        told = query("SELECT model, avg(sr_psnr) FROM attacks GROUP BY model", [folder]).rows[0][1]
    took, spent = time.perf_counter() - began, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(took, 2), "processor": round(spent, 2), "MiB": round(peak), "result": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="of 200 cells each")
    parser.add_argument("--work", type=Path, default=Path("runs/scale"))
    parser.add_argument("--phases", nargs="*", choices=PHASES, default=PHASES)
    parser.add_argument("--inside", choices=PHASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.inside, arguments.work)))
        return
    if not (arguments.work / "images").is_dir():
        prepare(arguments.work, arguments.images)
    print(f"{provenance().hardware}; {200 * arguments.images} cells")
    for phase in arguments.phases:
        command = [sys.executable, __file__, "--work", str(arguments.work), "--inside", phase]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        took = f"{found['seconds']:8.2f} s, of a processor {found['processor']:8.2f} s"
        print(f"{phase:12} {took} {found['MiB']:6} MiB   {found['result']}", flush=True)


if __name__ == "__main__":
    main()
