"""Writing files so that a full disk or a killed process never leaves half a file under its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import pydantic

from resolute.errors import ConfigError, OutputError

if sys.platform != "win32" or TYPE_CHECKING:
    import fcntl
else:  # no locks: two runs in one folder are not noticed
    fcntl = None

# Temporary files that are being written: what is left to remove if a process ends at once.
UNFINISHED = set[Path]()

# As ``write_atomically`` names what it has not finished.
_TEMPORARY = re.compile(r"\..*-[0-9a-f]{16}(\.[^.]*)?")
_FILE_NAME = re.compile(r"(?!\.)[^/\\:\x00-\x1f\x7f\ud800-\udfff]+")


def check_file_name(name: str) -> str:
    """Return a name that others gave, if a file can be called by it without leaving its folder.

    Raises:
        ConfigError: none can, on some system.

    Example:
        >>> check_file_name("edsr-xs, δ = 0.1")
        'edsr-xs, δ = 0.1'
    """
    if not _FILE_NAME.fullmatch(name) or len(name.encode()) > 200:
        raise ConfigError(
            f"{name[:40]!r} is to call files: no slash, backslash or colon, no dot in front, at most 200 bytes"
        )
    return name


# A name that others gave, by which files are called.
FileName = Annotated[str, pydantic.AfterValidator(check_file_name)]


def read_regular(path: Path) -> bytes:
    """Return the bytes of a file that anyone may have put there.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which might never end.

    Example:
        >>> read_regular(Path("/dev/zero"))
        Traceback (most recent call last):
        ...
        OSError: [Errno 22] it is no regular file: '/dev/zero'
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def check_writable(path: Path, option: str) -> None:
    """Refuse what a file cannot be written to, as far as can be told before there is anything to write.

    Raises:
        OutputError: it is a folder, a pipe or a device, in whose place no file is put, or its folder is none.

    Example:
        >>> check_writable(Path("/dev/null"), "--junit")
        Traceback (most recent call last):
        ...
        resolute.errors.OutputError: cannot write /dev/null: it is no regular file; choose another name with --junit
    """
    _check_target(path, option)
    around = next(one for one in path.absolute().parents if one.exists())
    if not around.is_dir() or not os.access(around, os.W_OK):
        why = "it cannot be written to" if around.is_dir() else "it is no folder"
        raise OutputError(f"cannot write to {around}: {why}; choose another folder with {option}")


def _check_target(path: Path, option: str = "--out") -> None:
    with contextlib.suppress(OSError):  # What cannot be looked at is said when it is written to.
        mode = path.stat().st_mode
        if path.parent == Path("/dev") or not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise OutputError(f"cannot write {path}: it is {what}; choose another name with {option}")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it to its final name.

    Raises:
        OutputError: the folder or the file cannot be written, or is a pipe or a device, in whose place none is put.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "deep" / "note.txt"
        >>> write_atomically(target, lambda path: path.write_text("kept"))
        >>> target.read_text()
        'kept'
    """
    _check_target(path)
    # Named before it exists, so that an interrupt at any moment finds it in the clean-up below.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            UNFINISHED.add(temporary)
            temporary.touch(exist_ok=False)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write to {path.parent}: {reason}; choose another folder with --out") from None
        try:
            write(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; free some room and run again") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        UNFINISHED.discard(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Keep other processes that ask for the same out of a folder, by a lock that the kernel drops with the process.

    What killed ones have left half-written is removed.

    Raises:
        ConfigError: another process is at work there.
        OutputError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with alone_in(Path(tempfile.mkdtemp()) / "run"):
        ...     pass
    """
    with _lock_file(folder) as file:
        if _taken(file) is False:
            raise ConfigError(f"another process is at work in {folder}: wait for it, or choose another --out")
        yield


@contextlib.contextmanager
def among_others_in(folder: Path) -> Generator[None]:
    """Be one of several processes at work in a folder, of which the first removes what killed ones left half-written.

    Raises:
        OutputError: the folder cannot be written to.
    """
    with _lock_file(folder) as file:
        if _taken(file) is not None and fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _lock_file(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not emptied: it may be a link to what is somebody's.
        return (folder / "run.lock").open("ab")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from None


def _taken(file: BinaryIO) -> bool | None:
    """Lock a file, and remove what is left half-written around it; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    for path in Path(file.name).parent.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return True


def beside(out: Path, name: str) -> Path | None:
    """Return the weights of the run called ``name`` in the folder that ``out`` is in, or None if there are none."""
    path = out.parent / name / f"{name}.safetensors"
    return path if name and path.is_file() else None
