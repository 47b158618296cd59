"""Writing files so that a full disk or a killed process never leaves half a file under its final name."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path

from resolute.errors import OutputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it to its final name.

    Raises:
        OutputError: the folder or the file cannot be written.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "deep" / "note.txt"
        >>> write_atomically(target, lambda path: path.write_text("kept"))
        >>> target.read_text()
        'kept'
    """
    # Named before it exists, so that an interrupt at any moment finds it in the clean-up below.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def beside(out: Path, name: str) -> Path | None:
    """Return the weights of the run called ``name`` in the folder that ``out`` is in, or None if there are none."""
    path = out.parent / name / f"{name}.safetensors"
    return path if name and path.is_file() else None
