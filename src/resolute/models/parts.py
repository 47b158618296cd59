"""Models in several files: what lies beside the one that is named, and the sha256 of all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from resolute.errors import CheckpointError
from resolute.models.onnx_file import weights_beside
from resolute.models.weights import sha256_of


def beside(path: Path) -> tuple[str, ...]:
    """Return what the files are called that belong to a file and lie in its folder: weights of ONNX and of ncnn.

    Raises:
        CheckpointError: the file is no ONNX file, or asks for weights outside of its folder.
        ConfigError: it is one, and the package onnx is missing.

    Example:
        >>> beside(Path("x.param")), beside(Path("x.pth"))
        (('x.bin',), ())
    """
    if path.suffix == ".param":
        return (path.with_suffix(".bin").name,)
    return weights_beside(path) if path.suffix == ".onnx" else ()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file and of those that belong to it, wherever their folder is.

    Raises:
        CheckpointError: one of them cannot be read, or as above.
    """
    digest, others = _sha256(path), [_sha256(path, name) for name in beside(path)]
    return sha256_of(digest, *others) if others else digest


def require_sha256(path: Path, sha256: str) -> None:
    """Refuse a file of another sha256 than the one that is asked for; an empty one asks for none.

    Raises:
        CheckpointError: it has another.
    """
    found = file_sha256(path) if sha256 else ""
    if found != sha256:
        also = "with the files that belong to it " if beside(path) else ""
        raise CheckpointError(f"{path.name} {also}has the sha256 {found}, and not the one asked for; copy it again")


def _sha256(path: Path, other: str = "") -> str:
    """Return the sha256 of a file, or of another one in its folder that belongs to it."""
    try:
        with (path.parent / (other or path.name)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or error
        if not other:
            raise CheckpointError(f"{path.name} cannot be read: {why}") from None
        raise CheckpointError(
            f"{path.name} keeps its weights in {other[:100]!r} beside it, which cannot be read ({why}); copy both into "
            "one folder"
        ) from None
