"""ONNX files on the disk: the graph, and the weights that it keeps in other files beside it."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, final

from resolute.errors import CheckpointError, ConfigError, first_line
from resolute.models.contents import unreadable

HINT = "pip install 'resolute[onnx]'"


@final
@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """An ONNX file.

    Attributes:
        name: of the file.
        model: what onnxruntime opens: the content, or the path where weights lie beside it.
    """

    name: str
    model: bytes | str


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file.

    Raises:
        CheckpointError: it cannot be read, or asks for weights outside of its folder.
        ConfigError: the package onnx is missing.
    """
    # By its absolute path: a content without a path has its weights looked for in the working directory.
    return OnnxFile(path.name, str(path.absolute()) if weights_beside(path) else _content(path))


def weights_beside(path: Path) -> tuple[str, ...]:
    """Return the files with weights that belong to an ONNX file, by their paths from its folder.

    Raises:
        CheckpointError: as ``read_onnx``.
        ConfigError: as ``read_onnx``.
    """
    found = tuple(sorted(set(_locations(path))))
    for location in found:
        # By the rules of either system.
        if any(one.anchor or ".." in one.parts for one in (PurePosixPath(location), PureWindowsPath(location))):
            raise CheckpointError(
                f"{path.name} asks for weights in {location[:100]!r}, outside of its own folder; put them beside it "
                "and name them there, as onnx.save(model, path, save_as_external_data=True) does"
            )
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from None


def _locations(path: Path) -> Iterator[str]:
    content = _content(path)
    onnx = library("onnx", path.name)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # What cannot be parsed raises a class of protobuf's, of which there are several.
        raise unreadable(path, "ONNX file", first_line(error)) from None
    if not content:
        raise unreadable(path, "ONNX file")
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
