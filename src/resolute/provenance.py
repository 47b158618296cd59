"""How a result was made: command, versions and hardware, written beside it."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path

import torch


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What someone needs to make the result again, and to judge its timings.

    Attributes:
        command: as typed.
        date: start of the run, UTC.
        versions: of resolute, Python, torch and numpy.
        hardware: processor or accelerator, and threads.
    """

    command: str
    date: str
    versions: dict[str, str]
    hardware: str


def provenance() -> Provenance:
    """Describe this process.

    Example:
        >>> sorted(provenance().versions)
        ['numpy', 'python', 'resolute', 'torch']
    """
    program = Path(sys.argv[0]).name
    # `python -m resolute` is the same program.
    arguments = ["resolute" if program == "__main__.py" else program, *sys.argv[1:]]
    versions = {name: metadata.version(name) for name in ("resolute", "torch", "numpy")}
    return Provenance(
        command=shlex.join(arguments),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={**versions, "python": platform.python_version()},
        hardware=f"{_processor()}, {torch.get_num_threads()} threads",
    )


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
