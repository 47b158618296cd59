"""Processes to kill: forked from one that has imported what they need, so that each begins in no time."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import resolute.__main__
from resolute import run
from resolute.cli import main
from resolute.engine.queue import Machine
from resolute.errors import OutputError
from resolute.training.loop import train
from resolute.training.recipe import read_recipe

warm = multiprocessing.get_context("forkserver")
warm.set_forkserver_preload(
    [
        "resolute.studies.kinds",
        "resolute.engine.running",
        "resolute.engine.workers",
        "resolute.models.weights",
        "resolute.training.hardening",
        "resolute.report.page",
        "resolute.cli.app",
        "lightning_fabric",
        "duckdb",
    ]
)


def _confine(kind, limits):
    resource.setrlimit(kind, limits)
    # Half of a compiled module would be taken for a whole one ever after.
    sys.dont_write_bytecode = True


def _answer(study, out, ready=None, limit=None, room=0, machine=None):
    if limit is not None:
        _confine(*limit)
    if room:
        status = Path("/proc/self/status").read_text().splitlines()
        taken = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (taken + room, taken + room))
    # Workers begin from the same process as this one: to import PyTorch anew for every kill would take most of a test.
    forkserver._forkserver.ensure_running = lambda: None
    if ready is not None:
        ready.send("begun")
    try:
        run(study, out, machine or Machine())
    except OutputError:
        os._exit(7)


def child(*arguments, **options):
    """Run a study in a process of its own."""
    return _started(_answer, *arguments, **options)


def killed_after(seconds, *arguments, **options):
    """Run a study in a process of its own, and kill it so long after it began; return whether it was still at work."""
    ours, theirs = warm.Pipe()
    process = child(*arguments, theirs, **options)
    assert ours.recv() == "begun"
    process.join(seconds)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def _learn(recipe, data, out):
    train(read_recipe(recipe), [data], out, device="cpu")


def train_killed(recipe, data, out, later=0.0):
    """Train in a process of its own, and kill it so long after its first checkpoint."""
    process = _started(_learn, recipe, data, out)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.join(later)
    process.kill()
    process.join()


def _started(function, *arguments, **options):
    for _ in range(3):
        process = warm.Process(target=function, args=arguments, kwargs=options)
        # What is killed while it asks for a worker can take the process down that it asks, and the next begins anew.
        with contextlib.suppress(ConnectionError, EOFError):
            process.start()
            return process
    raise ConnectionError("no process can be started")


def _type(arguments, stdout, stderr, limit, environment):
    # As a shell does, so that a signal reaches what it started too.
    os.setpgrp()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(stderr.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit is not None:
        _confine(*limit)
    # As `python -m resolute` has it, for those who begin the same again.
    sys.argv = [resolute.__main__.__file__, *arguments]
    main()


class Typed:
    """A command in a process of its own, as a shell begins one, but without the seconds that imports take."""

    def __init__(self, *arguments, stdout=os.devnull, limit=None, environment=()):
        self.stderr, theirs = warm.Pipe(duplex=False)
        typed = [str(argument) for argument in arguments]
        self.process = _started(_type, typed, str(stdout), theirs, limit, dict(environment))
        theirs.close()

        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def ended(self, timeout):
        """Return exit code and standard error."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "hangs"
        return self.process.exitcode, b"".join(iter(lambda: os.read(self.stderr.fileno(), 4096), b"")).decode()
