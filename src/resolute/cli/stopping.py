"""Ending within a second of SIGTERM or Ctrl-C, whatever a library is doing at that moment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time

from resolute.files import UNFINISHED

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

KEPT = "what was finished is kept; the same command goes on from there"

# The command that has to clean up first; the results of others are on disk as soon as they are there, or not at all.
SLOW = "serve"

# How long Python has to end by itself. It answers signals between two calls of a library only, and one gradient of a
# large network takes many seconds.
_GRACE = 0.4

_CODES = {signal.SIGTERM: (TERMINATED, "terminated"), signal.SIGINT: (INTERRUPTED, "interrupted")}


class Terminated(BaseException):
    """SIGTERM has come; no ``SystemExit``, which code of somebody else may raise."""


def terminate(_number: int, _frame: object) -> None:
    """Answer SIGTERM.

    Raises:
        Terminated: always.
    """
    raise Terminated


def end_promptly() -> None:
    """Let a thread end this process, and those that it has started, where it does not answer a signal by itself.

    The handlers of SIGTERM and SIGINT are those of Python; call this from the main thread.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()


def _watch(signals: int) -> None:
    number = 0
    while number not in _CODES:
        number = os.read(signals, 1)[0]
    time.sleep(_GRACE)
    code, word = _CODES[signal.Signals(number)]
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which a live display hides
    os.write(2, f"{shown}\n{word}: {KEPT}\n".encode())
    leave(code)


def leave(code: int) -> None:
    """End this process at once, with those that it has started, and leave no unfinished file.

    The end of an interpreter with PyTorch in it takes a second.
    """
    for child in multiprocessing.active_children():
        child.kill()
    for path in tuple(UNFINISHED):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
