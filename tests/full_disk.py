"""A disk that is full from one write on, whichever it is, for every file below a folder."""

import contextlib
import errno
import os
import sys
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR
_state = {"folder": "", "left": 0, "seen": 0}


def _watch(event, arguments):
    if not _state["folder"] or event not in ("open", "os.rename", "os.mkdir"):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if not isinstance(path, str | Path) or not str(path).startswith(_state["folder"]):
        return
    if event == "open" and not (arguments[2] & _WRITES):
        return
    _state["seen"] += 1
    if _state["seen"] >= _state["left"]:
        folder, _state["folder"] = _state["folder"], ""
        # What fitted is written all the same.
        if event == "open" and Path(path).suffix == ".jsonl" and Path(path).exists():
            with Path(path).open("ab") as file:
                file.write(b'{"record": "')
        _state["folder"] = folder
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


sys.addaudithook(_watch)


@contextlib.contextmanager
def full_from(folder, write):
    """Let the n-th write below a folder fail, counted from 1, and all after it."""
    _state.update(folder=str(folder), left=write, seen=0)
    try:
        yield
    finally:
        _state["folder"] = ""


@contextlib.contextmanager
def counted(folder):
    """Count the writes below a folder; yields a list that holds their number at the end."""
    found = []
    with full_from(folder, sys.maxsize):
        yield found
        found.append(_state["seen"])
