"""Weights files: safetensors with a card inside, or PyTorch checkpoints without executable content."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from resolute.errors import CheckpointError, first_line
from resolute.files import write_atomically
from resolute.models.base import Card, ScorerCard

State = dict[str, Tensor]
AnyCard = TypeVar("AnyCard", bound=Card | ScorerCard)

# How the files end that can be given by a path.
FILES = (".safetensors", ".pt", ".pth", ".onnx", ".param")

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64)

# What a file says that it holds, and the class of its card. Files without a word on it hold a restorer.
_KINDS: dict[str, type[Card] | type[ScorerCard]] = {"restorer": Card, "scorer": ScorerCard}

_BUILT_IN = Path(str(resources.files("resolute") / "weights"))

# Where training code commonly nests the weights in a checkpoint, the averaged and the most specific first.
_NESTINGS = (
    *("params_ema", "params-ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "ema", "shadow"),
    *("params", "model_state_dict", "state_dict", "model", "module", "net", "generator", "netG", "net_g", "weights"),
)

# What stands before the names of the network that counts, where a checkpoint holds several; averaged ones first.
_NETWORKS = (
    *("ema_model.", "model_ema.", "ema.", "generator_ema.", "netG_ema.", "net_g_ema."),
    *("generator.", "netG.", "net_g.", "model.", "net."),
)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, types, shapes and bytes, the same whatever file holds the weights.

    Example:
        >>> weights_sha256({"w": torch.zeros(2)})[:12]
        'c54171aeb4bd'
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
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
    return _BUILT_IN / name


def built_in_weights(card: type[Card] | type[ScorerCard]) -> dict[str, Path]:
    """Return the names and files of this project's weights that carry a card of the given class."""
    files = {path.stem: path for path in sorted(_BUILT_IN.glob("*.safetensors"))}
    return {
        name: path for name, path in files.items() if _KINDS.get(read_metadata(path).get("kind", "restorer")) is card
    }


def read_weights(path: Path) -> tuple[State, Card | ScorerCard | None]:
    """Read a weights file, and its card where Resolute wrote it, without names that wrappers put in front.

    Raises:
        CheckpointError: the file is missing, damaged, holds code instead of weights, or weights that are not finite
            or no floating-point numbers.
    """
    state, card, _ = read_named(path)
    return bare(state), card


def read_named(path: Path) -> tuple[State, Card | ScorerCard | None, str]:
    """Read a weights file as ``read_weights`` does, by the names in the file.

    Returned is besides which set of weights was taken, in words, where the file holds several.

    Raises:
        CheckpointError: as ``read_weights``.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}; give a path or a built-in name (`resolute models` lists them)")
    layers = path.with_suffix(".param")
    if path.suffix == ".bin" and layers.is_file():
        raise CheckpointError(f"{path.name} holds weights of ncnn alone; give {layers.name}, which lies beside it")
    taken = ""
    if path.suffix == ".safetensors":
        state, card = _read_safetensors(path)
    else:
        (state, route, others), card = find_weights(read_checkpoint(path), path.name), None
        if others:
            taken = f"{'.'.join(route)}, of {', '.join('.'.join(other) for other in (route, *others))}"
    _require_values(state, path.name)
    for name, tensor in state.items():
        _check_dtype(path.name, name, tensor)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path.name}: {broken[0]} is not finite; take an earlier checkpoint of the training")
    return state, card, taken


def _require_values(state: State, file: str) -> None:
    """Refuse tensors that have no value of their own in the file for each of their elements, or none that counts."""
    for name, tensor in state.items():
        if tensor.is_nested or tensor.layout != torch.strided:
            odd = "is a nested tensor" if tensor.is_nested else f"is sparse ({str(tensor.layout)[6:]})"
        elif tensor.is_meta:
            odd = "lies on the device meta, which keeps no values"
        elif tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
            odd = f"claims the shape {tuple(tensor.shape)} and holds fewer values"
        elif tensor.is_floating_point() and tensor.itemsize == 1:
            odd = f"is {str(tensor.dtype)[6:]}, whose scale is not in it"
        else:
            continue
        raise CheckpointError(f"{file}: {name} {odd}; save the weights as dense float32 tensors")


def _check_dtype(file: str, name: str, tensor: Tensor) -> None:
    """Refuse weights of a type that torch would copy into a network as other numbers than they stand for."""
    # Whole numbers and truth values are those of buffers, such as counters and tables of positions. Quantised weights
    # say so in their names, and whoever reads them knows their scales.
    told = name.endswith(f"_{str(tensor.dtype).removeprefix('torch.')}")
    buffer = told or (tensor.dtype in _WHOLE and name.rpartition(".")[2] not in ("weight", "bias"))
    if not buffer and tensor.dtype not in _REAL:
        raise CheckpointError(
            f"{file}: {name} is {str(tensor.dtype).removeprefix('torch.')}, and weights are float16, bfloat16, float32 "
            "or float64; take the checkpoint from before quantisation, or convert it"
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
        raise CheckpointError(f"{path.name} is no readable safetensors file ({first_line(error, 120)})") from None
    kind = metadata.get("kind", "restorer")
    if "card" in metadata and kind not in _KINDS:
        raise CheckpointError(f"{path.name} holds a {kind[:40]!r}, which this version does not know; update Resolute")
    try:
        card = card_of(json.loads(metadata["card"]), _KINDS[kind]) if "card" in metadata else None
    except (TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{path.name} carries a damaged model card; copy the file again") from None
    return state, card


def card_of(facts: dict[str, Any], kind: type[AnyCard]) -> AnyCard:
    """Return a card from what a file says; damaged ones raise TypeError, ValueError or AttributeError."""
    if facts.get("usual") is not None:
        # JSON knows no tuples.
        facts = {**facts, "usual": tuple(facts["usual"])}
    return kind(**facts)


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


Route = tuple[str, ...]


def find_weights(content: object, file: str) -> tuple[State, Route, list[Route]]:
    """Return the weights in a checkpoint, as they are named there, the keys that lead to them, and to other weights.

    Raises:
        CheckpointError: it holds none.

    Example:
        >>> weights = {"a.weight": torch.zeros(2)}
        >>> state, route, others = find_weights({"epoch": 3, "model": weights, "ema": {"shadow": weights}}, "x.pt")
        >>> list(state), route, others
        (['a.weight'], ('ema', 'shadow'), [('model',)])
    """
    found = list(_nested(content, ()))
    if not found:
        held = cast("dict[object, object]", content) if isinstance(content, dict) else {}
        shown = ", ".join(f"{str(key)[:40]} ({type(value).__name__})" for key, value in list(held.items())[:5])
        raise CheckpointError(
            f"{file} holds no state_dict: expected a mapping from names to tensors, found "
            f"{shown or type(content).__name__}"
        )
    (route, state), *others = found
    return {str(name): tensor for name, tensor in state.items()}, route, [other for other, _ in others]


def _nested(content: object, route: Route) -> Iterator[tuple[Route, Mapping[object, Tensor]]]:
    if not isinstance(content, dict):
        return
    held = cast("dict[object, object]", content)
    below = [found for key in _NESTINGS if key in held for found in _nested(held[key], (*route, key))]
    yield from below
    if not below and held and all(isinstance(value, Tensor) for value in held.values()):
        yield route, cast("dict[object, Tensor]", content)


def first_keys(state: Mapping[str, Tensor]) -> str:
    """Return the first names of weights and their shapes, for errors."""
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:3])


def bare(state: Mapping[str, Tensor]) -> State:
    """Return weights without what wrappers for several devices and for averages put around them.

    Example:
        >>> list(bare({"module.a.w": torch.ones(1), "n_averaged": torch.ones(1)}))
        ['a.w']
    """
    return {name.removeprefix("module."): tensor for name, tensor in state.items() if name != "n_averaged"}


def readings(state: Mapping[str, Tensor]) -> Iterator[State]:
    """Yield weights under the names that they may have in their network, the likeliest first.

    Training code puts its own names in front: of the wrapper, the attribute, or one of several networks.

    Example:
        >>> [list(names) for names in readings({"module._orig_mod.a.w": torch.ones(1), "n_averaged": torch.ones(1)})]
        [['_orig_mod.a.w'], ['a.w'], ['w']]
    """
    yield from _stripped(state)
    rest = bare(state)
    for first in _NETWORKS:
        some = {name.removeprefix(first): tensor for name, tensor in rest.items() if name.startswith(first)}
        if 0 < len(some) < len(rest):
            yield from _stripped(some)


def _stripped(state: Mapping[str, Tensor]) -> Iterator[State]:
    """Yield weights bare, then without what stands before a dot in all of their names, again and again."""
    state = bare(state)
    yield state
    # A part of a network that was compiled by itself.
    if any("._orig_mod." in name for name in state):
        yield {name.replace("._orig_mod.", "."): tensor for name, tensor in state.items()}
    while len({name.partition(".")[0] for name in state}) == 1 and all("." in name for name in state):
        state = bare({name.partition(".")[2]: tensor for name, tensor in state.items()})
        yield state


def misfit(file: str, architecture: str, error: Exception) -> CheckpointError:
    """Return the error that says in one line why weights that look like an architecture do not load into it."""
    return CheckpointError(f"{file} looks like {architecture} but does not fit it: {misfit_line(error)}")


def misfit_line(error: Exception) -> str:
    """Return the line of an error that says what does not fit: the second one of those of ``load_state_dict``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[min(1, len(lines) - 1)][:300]
