"""Running a study so that no answer is lost and none computed twice."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

from resolute.engine.bench import Found, PlanBench
from resolute.engine.plan import Plan
from resolute.engine.queue import Machine, Queue, Tell, wait_for_others
from resolute.engine.records import Records
from resolute.engine.store import Store
from resolute.errors import ConfigError, ImageError
from resolute.files import among_others_in
from resolute.of_file import told_in_one_line
from resolute.provenance import provenance
from resolute.runtime import resolve_device
from resolute.studies.kinds import KINDS, read_study
from resolute.studies.record import SCHEMA
from resolute.studies.study import Described, Study


def plan_of(study: Study) -> Plan:
    """Load the models and images of a study, and say what is to be done.

    Raises:
        ConfigError, CheckpointError, ImageError: the study cannot be planned.
    """
    with told_in_one_line():
        plan = Plan(study, list(study.cells()))
    problems = [cell.problem for cell in plan.cells if cell.problem]
    if problems and len(problems) == len(plan):
        raise ImageError(problems[0] if len(plan) == 1 else f"no image can be used; the first: {problems[0]}")
    return plan


def run(
    study: Study | Plan | str | Path,
    out: Path | str | None = None,
    machine: Machine | None = None,
    *,
    progress: Tell | None = None,
    on_found: Callable[[Found], None] | None = None,
) -> Records:
    """Answer the cells that ``out`` does not hold yet, and return the records of all cells, a list.

    The figures are the same whatever the number of workers, their order and the interruptions before. A cell that fits
    no memory or kills its workers is left out, and said in ``failed.jsonl``. Several runs of one study share the work.

    Args:
        study: or its plan, its name, or a TOML file.
        out: folder of the study; ``runs/NAME`` if not given.
        machine: how to run; in this process, on a GPU if there is one, if not given.
        progress: called with (cells done, cells in all, title of the one at work), also within a cell.
        on_found: called with what is found, once it is on disk.

    Raises:
        ConfigError, CheckpointError, ImageError: the study cannot be planned, or the folder is that of another kind.
        OutputError: a record cannot be written; those before it are kept.
        RuntimeError: a worker met a defect, told with its traceback.
    """
    machine = machine or Machine(device=resolve_device("auto"))
    if isinstance(study, str | Path):
        study = read_study(study)
    plan = study if isinstance(study, Plan) else plan_of(study)
    study = plan.study
    folder = Path(out or Path("runs") / plan.study.name)
    with among_others_in(folder):
        _refuse_another_kind(Store(folder), study)
        Store(folder).write_facts(
            {
                "schema": SCHEMA,
                "kind": study.kind,
                "study": dataclasses.asdict(study),
                "provenance": dataclasses.asdict(provenance()),
                "facts": study.facts(plan.cells) if isinstance(study, Described) else {},
                "doubts": plan.doubts(),
                "cells": [cell.key for cell in plan.cells],
            }
        )
        queue = Queue(plan, folder, machine.cells, progress, on_found)
        with contextlib.closing(queue):
            if machine.ray:
                from resolute.engine.cluster import run_on_ray

                run_on_ray(queue, machine)
            elif machine.workers > 1:
                from resolute.engine.workers import Workers

                Workers(queue, machine).run()
            else:
                _run_here(queue, machine)
    queue.tell("done")
    done = queue.done()
    return Records(study, (done[cell.key] for cell in plan.cells if cell.key in done))


def _refuse_another_kind(store: Store, study: Study) -> None:
    """Keep a study out of the folder of another kind, whose results no page would show any more."""
    kind = store.facts().get("kind")
    if isinstance(kind, str) and kind in KINDS and kind != study.kind and store.read():
        raise ConfigError(f"{store.folder} holds a study of another kind, {kind}: choose another folder with --out")


def _run_here(queue: Queue, machine: Machine) -> None:
    bench = PlanBench(queue.plan, machine.device, machine.memory_each)
    while queue:
        task = queue.take()
        if task is None:
            wait_for_others(queue)
        else:
            unit = task.unit
            queue.put(unit, bench.do(unit, task.records, lambda share, unit=unit: queue.step(unit, share)))
