"""What the machine offers: device, fast arithmetic, and an allocator that keeps its memory.

The functions import PyTorch, not the file: the command line sets the allocator up before it knows what it is to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from resolute.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

# glibc's mallopt parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def tune_allocator() -> None:
    """Let glibc keep freed memory instead of returning it after every tensor.

    On a CPU the page faults of fresh memory cost up to half of the time of a small network. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)


@contextlib.contextmanager
def full_float32() -> Generator[None]:
    """Keep cuDNN from rounding what enters a float32 convolution to TF32, which it does unless told otherwise.

    Ten bits of mantissa lose short steps as bfloat16 does, and make a verdict that differs from a CPU's.

    Example:
        >>> import torch
        >>> with full_float32():
        ...     torch.backends.cudnn.allow_tf32
        False
    """
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def without_denormals() -> Generator[None]:
    """Let this thread take numbers below 1e-38 for zero.

    A processor takes a hundred times as long over one, and the way back through a GELU far from zero is full of them.

    Example:
        >>> import torch
        >>> with without_denormals():
        ...     float(torch.tensor(1e-39) * 1)
        0.0
    """
    import torch

    # Nothing tells what is set.
    before = float(torch.tensor(1e-39) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16, and does not only emulate it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Since PyTorch 2.6; before, nothing tells.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` or ``cpu``, and check any other name.

    Raises:
        ConfigError: the device does not exist here.

    Example:
        >>> resolve_device("cpu")
        'cpu'
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0]
        raise ConfigError(f"device {device!r} cannot be used ({reason}); try --device cpu") from None
    return device


def resident_bytes() -> int:
    """Return the memory that this process occupies, in bytes, after giving back what it has freed; 0 where unknown.

    Example:
        >>> 0 <= resident_bytes() < 2**40
        True
    """
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, AttributeError):  # not on Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes(device: str = "cpu") -> int:
    """Return the memory that a device has free, in bytes: on Linux also within the limit of the control group.

    Where nothing tells, 8 GB are taken to be free.

    Example:
        >>> free_bytes() > 0
        True
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    found = [2**33]
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")] or found
    return max(1, min([*found, *_left_in_group()]))


def _left_in_group() -> Generator[int]:
    """Yield what the control groups of this process leave, in version 2 and version 1."""
    own = "/"
    with contextlib.suppress(OSError):
        own = next(
            (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "/"
        )
    root = Path("/sys/fs/cgroup")
    groups = [(folder, "memory.max", "memory.current") for folder in (root / own.strip("/"), root)]
    for folder, limit, usage in [*groups, (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")]:
        # No number means no limit.
        with contextlib.suppress(OSError, ValueError):
            # What the files in its cache take is given up when memory is asked for.
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(stat.get("inactive_file", stat.get("total_inactive_file", 0)))
            yield int((folder / limit).read_text()) - int((folder / usage).read_text()) + cached
