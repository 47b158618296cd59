"""Weights files: safetensors with a card inside, or PyTorch checkpoints without executable content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from resolute.errors import CheckpointError, first_line
from resolute.files import write_atomically
from resolute.models.archive import read_checkpoint
from resolute.models.base import Card, ScorerCard
from resolute.models.contents import unreadable
from resolute.models.readings import State, WeightSet, bare_names, find_sets, printable
from resolute.shipped import WEIGHTS, shipped

AnyCard = TypeVar("AnyCard", bound=Card | ScorerCard)

# How the files end that can be given by a path.
FILES = (".safetensors", ".pt", ".pth", ".onnx", ".param")

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64)

# What a file says that it holds, and the class of its card. Files without a word on it hold a restorer.
_KINDS: dict[str, type[Card] | type[ScorerCard]] = {"restorer": Card, "scorer": ScorerCard}


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, types, shapes and bytes, the same whatever file holds the weights.

    Example:
        >>> weights_sha256({"w": torch.zeros(2)})[:12]
        'c54171aeb4bd'
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().resolve_neg().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sha256_of(*facts: object) -> str:
    """Return the sha256 of facts that JSON can write.

    Example:
        >>> sha256_of("edsr-s", {"theta": 0.5})[:12]
        '946e23f4b75a'
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_model(model: nn.Module, path: Path, card: AnyCard) -> AnyCard:
    """Write the weights and the card to one safetensors file; return the card with the weights' sha256."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    card = dataclasses.replace(card, sha256=weights_sha256(state))
    metadata = {"card": json.dumps(dataclasses.asdict(card), sort_keys=True)}
    if not isinstance(card, Card):
        metadata["kind"] = next(kind for kind, facts in _KINDS.items() if isinstance(card, facts))
    # Not save_file, whose errors on a full disk are no OSError.
    write_atomically(path, lambda temporary: temporary.write_bytes(save(state, metadata)))
    return card


def built_in_file(name: str) -> Path:
    """Return where a file of this project's weights lies, or would."""
    return WEIGHTS / name


def built_in_weights(card: type[Card] | type[ScorerCard]) -> dict[str, Path]:
    """Return the names and files of this project's weights that carry a card of the given class."""
    return {one.name: one.path for one in shipped("restorer" if card is Card else "scorer")}


def read_weights(path: Path) -> tuple[State, Card | ScorerCard | None]:
    """Read a weights file, and its card where Resolute wrote it, without names that wrappers put in front.

    Raises:
        CheckpointError: the file is missing, damaged, holds code instead of weights, or weights that are not finite
            or no floating-point numbers.
    """
    sets, card = read_sets(path)
    state = {name: sets[0].state[key] for name, key in bare_names(sets[0].state).items()}
    require_values(state, path.name)
    return state, card


def read_sets(path: Path) -> tuple[list[WeightSet], Card | ScorerCard | None]:
    """Read all sets of weights in a file by their names there, the likeliest first, and its card.

    Before the values of one are used, ``require_values`` is to be asked.

    Raises:
        CheckpointError: the file is missing, damaged, or holds code or something else instead of weights.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}; give a path or a built-in name (`resolute models` lists them)")
    layers = path.with_suffix(".param")
    if path.suffix == ".bin" and layers.is_file():
        raise CheckpointError(f"{path.name} holds weights of ncnn alone; give {layers.name}, which lies beside it")
    if path.suffix == ".safetensors":
        state, card = _read_safetensors(path)
        return [WeightSet((), state)], card
    return find_sets(read_checkpoint(path), path.name), None


def require_values(state: State, file: str) -> None:
    """Refuse tensors without a finite value of their own for each element, and types that stand for other numbers.

    Raises:
        CheckpointError: it names the first one.
    """
    # Networks are built by shapes: an empty tensor can have any.
    largest = sum(tensor.numel() for tensor in state.values() if not tensor.is_nested)
    for name, tensor in state.items():
        if tensor.is_nested or tensor.layout != torch.strided:
            odd = "is a nested tensor" if tensor.is_nested else f"is sparse ({str(tensor.layout)[6:]})"
        elif tensor.is_meta:
            odd = "lies on the device meta, which keeps no values"
        elif _reached(tensor) < tensor.numel():
            odd = f"claims the shape {tuple(tensor.shape)} and holds fewer values"
        elif not tensor.numel() and max(tensor.shape) > largest:
            odd = f"has the shape {tuple(tensor.shape)} and is empty"
        elif tensor.is_floating_point() and tensor.itemsize == 1:
            odd = f"is {str(tensor.dtype)[6:]}, whose scale is not in it"
        else:
            continue
        raise CheckpointError(f"{file}: {printable(name)} {odd}; save the weights as dense float32 tensors")
    for name, tensor in state.items():
        _check_dtype(file, name, tensor)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{file}: {printable(broken[0])} is not finite; take an earlier checkpoint of the training"
        )


def _reached(tensor: Tensor) -> int:
    """Return how many values lie from a tensor's first to its last, itself counted."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _check_dtype(file: str, name: str, tensor: Tensor) -> None:
    """Refuse weights of a type that torch would copy into a network as other numbers than they stand for."""
    # Whole numbers and truth values are those of buffers, such as counters and tables of positions. Quantised weights
    # say so in their names, and whoever reads them knows their scales.
    told = name.endswith(f"_{str(tensor.dtype).removeprefix('torch.')}")
    buffer = told or (tensor.dtype in _WHOLE and name.rpartition(".")[2] not in ("weight", "bias"))
    if not buffer and tensor.dtype not in _REAL:
        raise _other_type(file, name, tensor)


def require_types(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: str) -> None:
    """Refuse whole numbers and truth values where a network has floating-point numbers.

    Raises:
        CheckpointError: it names the first one.
    """
    for name, tensor in state.items():
        if name in wanted and wanted[name].is_floating_point() and not tensor.is_floating_point():
            raise _other_type(file, name, tensor)


def _other_type(file: str, name: str, tensor: Tensor) -> CheckpointError:
    return CheckpointError(
        f"{file}: {printable(name)} is {str(tensor.dtype)[6:]}, and weights are float16, bfloat16, float32 or float64; "
        "take the checkpoint from before quantisation, or convert it"
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says about itself."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _read_safetensors(path: Path) -> tuple[State, Card | ScorerCard | None]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        metadata = read_metadata(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(path, "safetensors file", first_line(error, 120)) from None
    kind = metadata.get("kind", "restorer")
    if "card" in metadata and kind not in _KINDS:
        raise CheckpointError(f"{path.name} holds a {kind[:40]!r}, which this version does not know; update Resolute")
    try:
        card = card_of(json.loads(metadata["card"]), _KINDS[kind]) if "card" in metadata else None
    # Also one that is nested too deeply.
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{path.name} carries a damaged model card; copy the file again") from None
    return state, card


def card_of(facts: dict[str, Any], kind: type[AnyCard]) -> AnyCard:
    """Return a card from what a file says; damaged ones raise TypeError, ValueError or AttributeError."""
    if facts.get("usual") is not None:
        # JSON knows no tuples.
        facts = {**facts, "usual": tuple(facts["usual"])}
    return kind(**facts)


class MisfitError(CheckpointError):
    """Weights look like those of an architecture and do not fit it; others in the file may."""


def misfit(file: str, architecture: str, error: Exception) -> MisfitError:
    """Return the error that says in one line why weights that look like an architecture do not load into it."""
    why = misfit_line(error)
    if isinstance(error, LookupError | ArithmeticError):
        why = f"its shapes are those of no such network ({why})"
    return MisfitError(f"{file} looks like {architecture} but does not fit it: {why}")


def misfit_line(error: Exception) -> str:
    """Return the line of an error that says what does not fit: the second one of those of ``load_state_dict``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[min(1, len(lines) - 1)], 300)
