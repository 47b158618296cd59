"""Running the units of a study on a Ray cluster: the same work as on one machine, on as many as there are."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Generator
from typing import Any

import torch

from resolute.engine.bench import Found, PlanBench
from resolute.engine.queue import PATIENCE, ClaimedUnit, Machine, Queue, wait_for_others
from resolute.engine.workers import packed, unpacked
from resolute.errors import ConfigError, ResoluteError, first_line
from resolute.offline import OFFLINE, is_set

# How often Ray starts a unit again whose node or process is lost, before the unit is made smaller here.
RETRIES = 3


def run_on_ray(queue: Queue, machine: Machine) -> None:
    """Run what waits on a cluster; what is found comes back to this process, which writes it.

    Nodes need Resolute, and neither the images nor the models: those are sent. A unit takes the threads of one worker,
    and one GPU where the device is one. Units of a lost node are run again on another.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at this address, or it may not be asked.
        OutputError: a result cannot be written; those before it are kept.
        RuntimeError: a node met a defect, told with its traceback.
    """
    ray = _ray()
    content = packed(queue.plan)
    with _connected(ray, machine):
        gpus = int(machine.device.startswith("cuda"))
        remote = ray.remote(num_cpus=machine.threads, num_gpus=gpus, max_retries=RETRIES)(_do)
        shared = ray.put(content)
        flying: dict[Any, ClaimedUnit] = {}
        while queue or flying:
            # A few more than there are places, so that no node waits, and not all, so that other runs find work.
            while queue and len(flying) < 2 * _places(ray, machine) and (task := queue.take()) is not None:
                flying[remote.remote([shared], task, machine.device, machine.threads)] = task
            if not flying:
                wait_for_others(queue)
                continue
            for reference in ray.wait(list(flying), timeout=PATIENCE)[0]:
                task = flying.pop(reference)
                try:
                    found: Found = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, ResoluteError):
                        raise error.cause from None
                    raise RuntimeError(f"a node failed:\n{error}") from None
                except ray.exceptions.RayError:  # the node, the process or its memory is gone for good
                    queue.lost(task.unit)
                    continue
                queue.put(task.unit, found)


def _do(shared: list[Any], task: ClaimedUnit, device: str, threads: int) -> Found:
    """Answer one unit: what a node runs."""
    torch.set_num_threads(threads)
    return _bench(shared[0], device).do(task.unit, task.records, lambda share: None)


@functools.lru_cache(maxsize=1)
def _bench(reference: Any, device: str) -> PlanBench:
    # Once a process, since models are large and units small.
    return PlanBench(unpacked(_ray().get(reference)), device)


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


@contextlib.contextmanager
def _connected(ray: Any, machine: Machine) -> Generator[None]:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if machine.ray == "local":
        options["include_dashboard"] = False
    elif is_set(OFFLINE):
        raise ConfigError(f"--ray {machine.ray} asks other machines, which --offline forbids; try --ray local")
    host, colon, port = machine.ray.rpartition(":")
    try:
        # Ray itself tries for minutes where nobody is at home.
        if colon and port.isdigit() and "//" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=machine.ray, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {machine.ray!r} ({first_line(error)}); try --ray local") from None
    try:
        yield
    finally:
        ray.shutdown()
