"""Running the units of a study on a Ray cluster: the same work as on one machine, on as many as there are."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import socket
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from resolute.errors import ConfigError, ResoluteError, first_line
from resolute.studies.plan import Plan, Unit
from resolute.studies.running import PATIENCE, Machine, Shelf, Tally, give_up
from resolute.studies.work import Bench, Found
from resolute.studies.workers import packed

# How often Ray starts a unit again whose node or process is lost, before the unit is made smaller here.
RETRIES = 3


def run_on_ray(plan: Plan, units: Sequence[Unit], folder: Path, machine: Machine, tally: Tally) -> None:
    """Run units on a cluster; what is found comes back to this process, which writes it.

    Nodes need Resolute, and neither the images nor the models: those are sent. A unit takes the threads of one worker,
    and one GPU where the device is one. Units of a lost node are run again on another.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at this address.
        OutputError: a result cannot be written; those before it are kept.
        RuntimeError: a node met a defect, told with its traceback.
    """
    ray = _ray()
    content = packed(plan)
    with _connected(ray, machine):
        task = ray.remote(
            num_cpus=machine.threads,
            num_gpus=int(machine.device.startswith("cuda")),
            max_retries=RETRIES,
        )(_do)
        shared = ray.put(content)
        shelf = Shelf(plan, folder)
        waiting, taken, flying = deque(units), deque[Unit](), dict[Any, tuple[Unit, Unit]]()
        try:
            while waiting or taken or flying:
                if not waiting and not flying:
                    tally.tell("waiting for another run")
                    time.sleep(PATIENCE)
                    waiting, taken = taken, deque[Unit]()
                # A few more than there are places, so that no node waits, and not all, so that other runs find work.
                while waiting and len(flying) < 2 * _places(ray, machine):
                    unit = waiting.popleft()
                    mine = shelf.claim(unit)
                    if mine == "taken":
                        taken.append(unit)
                    elif mine == "done":
                        tally.found(unit, Found())
                    else:
                        flying[task.remote([shared], mine, machine.device, machine.threads)] = unit, mine
                ready, _ = ray.wait(list(flying), timeout=PATIENCE) if flying else ([], [])
                for reference in ready:
                    unit, mine = flying.pop(reference)
                    try:
                        found: Found = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        if isinstance(error.cause, ResoluteError):
                            raise error.cause from None
                        raise RuntimeError(f"a node failed:\n{error}") from None
                    except ray.exceptions.RayError:  # the node, the process or its memory is gone for good
                        again = mine.after_death()
                        waiting.extendleft(reversed(again))
                        shelf.release(unit)
                        if not again:
                            give_up(plan, mine, folder, tally)
                        continue
                    shelf.put(found)
                    shelf.release(unit)
                    tally.found(unit, dataclasses.replace(found, images=[]))
        finally:
            shelf.close()


def _do(shared: list[Any], unit: Unit, device: str, threads: int) -> Found:
    """Compute one unit: what a node runs."""
    torch.set_num_threads(threads)
    return _bench(shared[0], device).do(unit, lambda share: None)


@functools.lru_cache(maxsize=1)
def _bench(reference: Any, device: str) -> Bench:
    # Once a process, since models are large and units small.
    return Bench(pickle.loads(_ray().get(reference)), device)


def _places(ray: Any, machine: Machine) -> int:
    have = ray.cluster_resources()
    resource, each = ("GPU", 1) if machine.device.startswith("cuda") else ("CPU", machine.threads)
    return max(1, int(have.get(resource, 0) // each))


def _ray() -> Any:
    # Read when Ray is imported: no notices, no reports home.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'resolute[ray]'") from None
    return ray


def _knock(address: str) -> None:
    # Ray itself tries for minutes where nobody is at home.
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextlib.contextmanager
def _connected(ray: Any, machine: Machine) -> Generator[None]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if machine.ray == "local":
        options |= {"address": "local", "include_dashboard": False}
    else:
        options["address"] = machine.ray
    try:
        _knock(machine.ray)
        ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise ConfigError(f"no Ray cluster at {machine.ray!r} ({reason}); try --ray local") from None
    try:
        yield
    finally:
        ray.shutdown()
