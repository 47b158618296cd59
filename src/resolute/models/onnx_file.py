"""ONNX files on the disk: the graph, and the weights that it keeps in other files beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, final

from resolute.errors import CheckpointError, ConfigError, first_line
from resolute.models.weights import sha256_of

HINT = "pip install 'resolute[onnx]'"


@final
@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An ONNX file with all that belongs to it.

    Attributes:
        name: of the file.
        model: what onnxruntime opens: the content, or the path where weights lie beside it.
        sha256: of the content and, where there are such, of the files with its weights, wherever the folder is.
    """

    name: str
    model: bytes | str
    sha256: str


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file, and find the weights that lie beside it.

    Raises:
        CheckpointError: it cannot be read; weights are missing, or lie outside of its folder.
        ConfigError: the package onnx is missing.
    """
    content = _content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    locations = sorted(set(_locations(content, path.name)))
    if not locations:
        return OnnxFile(path.name, content, sha256)
    beside = [hashlib.sha256(_beside(path, location)).hexdigest() for location in locations]
    # By its absolute path: a content without a path has its weights looked for in the working directory.
    return OnnxFile(path.name, str(path.absolute()), sha256_of(sha256, *beside))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from None


def _beside(path: Path, location: str) -> bytes:
    """Return the content of a file beside an ONNX file, out of whose folder no location can lead, by either system."""
    if any(one.anchor or ".." in one.parts for one in (PurePosixPath(location), PureWindowsPath(location))):
        raise CheckpointError(
            f"{path.name} asks for weights in {location[:100]!r}, outside of its own folder; put them beside it and "
            "name them there, as onnx.save(model, path, save_as_external_data=True) does"
        )
    try:
        return (path.parent / location).read_bytes()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or error
        raise CheckpointError(
            f"{path.name} keeps its weights in {location[:100]!r} beside it, which cannot be read ({why}); copy both "
            "into one folder"
        ) from None


def _locations(content: bytes, file: str) -> Iterator[str]:
    onnx = library("onnx", file)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # What cannot be parsed raises a class of protobuf's, of which there are several.
        raise CheckpointError(f"{file} is no ONNX file ({first_line(error)}); copy or download it again") from None
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            # As bytes where it is no valid text.
            yield from (os.fsdecode(entry.value) for entry in tensor.external_data if entry.key == "location")


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """Yield all tensors in a message: of the graph, of graphs in its nodes, of constants and of functions."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if isinstance(value, Sequence) else (value,):
                yield from _tensors(one, kind)


def library(name: str, file: str) -> Any:
    """Return a package of the extra [onnx].

    Raises:
        ConfigError: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"{file} is an ONNX file, and running it needs {name}: {HINT}") from None
