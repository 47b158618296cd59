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


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error says that memory does not suffice, on a GPU or a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0]
        raise ConfigError(f"device {device!r} cannot be used ({reason}); try --device cpu") from None
    return device


def occupied_bytes() -> int:
    """Return the memory that this process occupies, in bytes, once what it has freed is given back; 0 where unknown.

    Example:
        >>> 0 <= occupied_bytes() < 2**40
        True
    """
    give_back()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not on Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Return freed memory to the system, which ``tune_allocator`` keeps; does nothing without glibc.

    Example:
        >>> give_back()
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_bytes(device: str = "cpu") -> int:
    """Return the memory that a device has free, in bytes, on Linux also within the limit of a container.

    Where nothing tells, 8 GB are taken to be free.

    Example:
        >>> free_bytes() > 0
        True
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    free = 8 * 10**9
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    # No number means no limit. What a container keeps of files it gives up when memory is asked for.
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(kept["inactive_file"]))
    return max(1, free)
