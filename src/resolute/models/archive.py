"""Checkpoints of PyTorch: tensors in plain containers, read without running code, and only where nothing is damaged."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from resolute.errors import CheckpointError, first_line
from resolute.files import write_atomically


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
        raise CheckpointError(f"{path.name} is damaged or no checkpoint; copy or download it again") from None
    except Exception as error:  # A damaged file can raise anything in an unpickler: struct.error, AssertionError...
        raise CheckpointError(f"{path.name} is damaged or no checkpoint ({first_line(error, 120)})") from None


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

    PyTorch compares none, so that a bit that flipped on a disk is a weight like any other.

    Raises:
        CheckpointError: a checksum is wrong.
        Exception: of any class, for a file that is damaged otherwise, or hostile.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # PyTorch can be told to save without checksums, and then they are all zero.
            summed = any(member.CRC for member in archive.infolist())
            broken = archive.testzip() if summed else None
        if broken is not None:
            raise CheckpointError(
                f"{path.name} is damaged: the checksum of {broken} is wrong; copy or download it again"
            )
    return torch.load(path, map_location="cpu", weights_only=True)
