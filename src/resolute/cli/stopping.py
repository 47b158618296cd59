"""Ending within a second of SIGTERM or Ctrl-C, whatever a library is doing at that moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

KEPT = "what was finished is kept; the same command goes on from there"

# Commands whose results are on disk as soon as they are there, so that they may end anywhere.
PROMPT = ("attack", "benchmark", "check", "study")

# How long Python has to end by itself, which cleans up: it answers signals only between two calls into C++, and one
# gradient of a large network takes many seconds.
_GRACE = 0.6

_CODES = {signal.SIGTERM: (TERMINATED, "terminated"), signal.SIGINT: (INTERRUPTED, "interrupted")}


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
    for child in multiprocessing.active_children():
        child.kill()
    code, word = _CODES[signal.Signals(number)]
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which a live display hides
    os.write(2, f"{shown}\n{word}: {KEPT}\n".encode())
    os._exit(code)
