"""Checkpoints of PyTorch: tensors in plain containers, read without running code, and only where nothing is damaged."""

from __future__ import annotations

import io
import mmap
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from resolute.errors import CheckpointError, first_line
from resolute.files import write_atomically
from resolute.models.contents import unreadable
from resolute.models.frame import frame_is_damaged

# How many times its size a file may take unpacked. PyTorch does not compress, other programs do, by little.
_EXPANDED = 20

# The unpickler of PyTorch makes one of any length, before anything can be asked of it.
_BYTES = b"bytearray"


def read_checkpoint(path: Path) -> object:
    """Return what a PyTorch checkpoint holds, without running code in it.

    Raises:
        CheckpointError: it is damaged, or holds code.
    """
    try:
        with warnings.catch_warnings():
            # torch remarks on pickle protocols, which say nothing to someone who only wants to load a file.
            warnings.simplefilter("ignore")
            return load_archive(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path.name} holds Python objects besides tensors and could run code when loaded, so it was not; "
                "save its state_dict() alone, or convert it to safetensors where you trust it"
            ) from None
        raise unreadable(path, "checkpoint") from None
    except Exception as error:  # A damaged file can raise anything in an unpickler: struct.error, AssertionError...
        raise unreadable(path, "checkpoint", first_line(error, 120)) from None


def save_archive(content: object, path: Path, *, zipped: bool = True) -> None:
    """Write what ``load_archive`` reads.

    Args:
        content: tensors in plain containers.
        path: the file.
        zipped: as a zip archive, as since PyTorch 1.6.

    Raises:
        OutputError: the file cannot be written.
    """
    # Through memory: the errors of torch.save on a full disk are no OSError, and it keeps the name of the file.
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_archive(path: Path) -> Any:
    """Return what ``torch.save`` wrote, tensors and plain containers alone, once every checksum in it was compared.

    PyTorch compares none, so that a bit that flipped on a disk is a weight like any other. Files of PyTorch before 1.6
    have no checksums.

    Raises:
        CheckpointError: a checksum is wrong, or there are more values than the file has bytes for.
        Exception: of any class, for a file that is damaged otherwise, or hostile.
    """
    size = _checked_size(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for tensor in _tensors(content, set()):
        held = 0 if tensor.is_meta or tensor.layout != torch.strided else tensor.untyped_storage().nbytes()
        if held > size:
            raise CheckpointError(
                f"{path.name} of {size:,} bytes claims a tensor of {held:,}; copy or download it again"
            )
    return content


def _checked_size(path: Path) -> int:
    """Return how many bytes are in a file unpacked, once its checksums were compared."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        _require_no_bytes(mapped.find(_BYTES) >= 0, path)
    if not zipfile.is_zipfile(path):
        return size
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > _EXPANDED * size:
            raise CheckpointError(f"{path.name} of {size:,} bytes unpacks to {unpacked:,}, as no checkpoint does")
        # PyTorch can be told to save without checksums, and then they are all zero.
        summed = any(entry.CRC for entry in entries)
        broken = archive.testzip() if summed else None
        why = f"the checksum of {broken} is wrong" if broken else ""
        if not why and summed and frame_is_damaged(archive, file):
            why = "what lies between its entries is not what PyTorch writes there"
        if why:
            raise CheckpointError(f"{path.name} is damaged: {why}; copy or download it again")
        pickled = [entry for entry in entries if entry.compress_type and entry.filename.endswith("data.pkl")]
        _require_no_bytes(any(_BYTES in archive.read(entry) for entry in pickled), path)
    return max(size, unpacked)


def _require_no_bytes(found: bool, path: Path) -> None:
    if found:
        raise CheckpointError(f"{path.name} holds a bytearray, which can take any memory; save its state_dict() alone")


def _tensors(content: object, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in a checkpoint, those of a container that is met again once."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict | list | tuple) and id(content) not in seen:
        seen.add(id(content))
        held = cast("dict[object, object]", content).values() if isinstance(content, dict) else content
        for one in cast("Iterable[object]", held):
            yield from _tensors(one, seen)
