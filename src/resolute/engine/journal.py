"""Several processes in one folder: a file of records for each, and claims on cells, so that none is computed twice.

All of it rests on locks that the kernel drops when a process ends, however it ends. Nothing looks at a clock.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from resolute.engine.store import RECORDS_STEM, Store, append_line, files_of, read_line
from resolute.errors import OutputError
from resolute.studies.record import Record

if sys.platform != "win32" or TYPE_CHECKING:
    import fcntl
else:  # no locks: files get names of their own, and two runs at once may compute a cell twice, which reading settles
    fcntl = None

_HELD = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@final
class Journal:
    """A file of JSON lines that no other process writes to: NAME.jsonl, or the first free one of NAME-2.jsonl, ….

    It is taken with the first line, and free again when the process ends or ``close`` is called.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for journal in (Journal(folder, "records"), Journal(folder, "records")):
        ...     journal.append({"key": "a"})
        >>> [path.name for path in files_of(folder, "records")]
        ['records.jsonl', 'records-2.jsonl']
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder = folder
        self.stem = stem
        self._path: Path | None = None
        self._lock: int | None = None

    def append(self, *contents: Mapping[str, object]) -> None:
        """Append lines in one write.

        Raises:
            OutputError: they cannot be written.
        """
        if self._path is None:
            self._path = self._take()
        elif self._lock is not None and not _same_file(self._lock, self._path):
            raise OutputError(f"{self._path} was removed while it was written to; run the same command again")
        append_line(self._path, *contents)

    def close(self) -> None:
        """Leave the file to others."""
        if self._lock is not None:
            os.close(self._lock)
        self._path = self._lock = None

    def _take(self) -> Path:
        number = 1
        while fcntl is not None:
            path = self.folder / (f"{self.stem}.jsonl" if number == 1 else f"{self.stem}-{number}.jsonl")
            lock = _open(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                if error.errno not in _HELD:
                    break
                number += 1
            else:
                self._lock = lock
                return path
        return self.folder / f"{self.stem}-{secrets.token_hex(6)}.jsonl"


@final
class Claims:
    """What this process is at work on: locks on single bytes of one file, a byte for each key.

    Claims hold against other processes, not against threads of this one. Where the file system has no locks every
    claim is granted.

    Example:
        >>> import tempfile
        >>> claims = Claims(Path(tempfile.mkdtemp()))
        >>> claims.take(["0123456789abcdef", "fedcba9876543210"])
        True
        >>> claims.close()
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "claims.lock"
        self._lock: int | None = None

    def take(self, keys: Sequence[str]) -> bool:
        """Claim all of these, or none where another process holds one of them."""
        if fcntl is None:
            return True
        if self._lock is None:
            self._lock = _open(self._path)
        for number, key in enumerate(keys):
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(key))
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return True
                if error.errno not in _HELD:
                    raise OutputError(f"cannot lock {self._path}: {error.strerror}") from None
                self.release(keys[:number])
                return False
        return True

    def release(self, keys: Sequence[str]) -> None:
        """Give claims back."""
        if fcntl is None or self._lock is None:
            return
        for key in keys:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, _byte(key))

    def close(self) -> None:
        """Give all claims back."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


@final
class RecordsRead:
    """The whole records of a folder, of which ``refresh`` reads only what has come since."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._records: dict[str, Record] = {}
        self._read: dict[Path, int] = {}

    def refresh(self) -> dict[str, Record]:
        """Return the last record of every key."""
        for path in files_of(self.store.folder, RECORDS_STEM):
            begin = self._read.get(path, 0)
            if not path.is_file() or path.stat().st_size <= begin:
                continue
            with path.open("rb") as file:
                file.seek(begin)
                new = file.read()
            whole = new.rpartition(b"\n")[0]
            self._read[path] = begin + len(whole)
            for line in whole.removeprefix(codecs.BOM_UTF8).split(b"\n"):
                # What is no record is told where the folder is read, and its cell answered again.
                with contextlib.suppress(ValueError):
                    record = read_line(line)
                    self._records[record.key] = record
        return self._records


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder with --out") from None


def _same_file(opened: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(opened), path.stat())
    except OSError:
        return False


def _byte(key: str) -> int:
    return int(key[:15], 16)  # below 2^60, which file offsets hold
