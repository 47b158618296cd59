"""Weights back into the file that they came from: same container, nesting, names, types and everything else in it."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from resolute.errors import CheckpointError, class_and_line
from resolute.files import write_atomically
from resolute.models.archive import read_checkpoint, save_archive
from resolute.models.base import Origin, Restorer
from resolute.models.readings import Reading, State, WeightSet, find_sets, readings
from resolute.models.weights import read_metadata, weights_sha256

# From the weights in a file to all tensors of the network that is built of them, by their names in it.
Rebuild = Callable[[State], State]

# The mean colour that is subtracted tells the range that a network works in.
_TELLING = ("sub_mean", "add_mean")

# Tensors smaller than this are kept where a layout is read from values.
_SMALL = 16


@final
@dataclasses.dataclass(frozen=True, eq=False)
class FileOrigin(Origin):
    """A weights file, and which of its entries became which tensors of the model.

    The second is not written down anywhere: architectures rename entries, keep one scale of several or drop a mean. It
    is found out by building the network once more of weights that no two entries share, and looking where they went.

    Attributes:
        names: of the weights that the network was built of, and what they are called in the file.
        rebuild: builds the network again.
        routes: the keys that lead to the weights in the file, and those to what they lack, if they do.
    """

    path: Path
    names: Mapping[str, str]
    rebuild: Rebuild
    note: str = ""
    routes: tuple[tuple[str, ...], ...] = ((),)

    def check(self, model: Restorer) -> None:
        self._plan(model, _Content.read(self.path, self.routes))

    def write(self, model: Restorer, out: Path, training: Mapping[str, object] | None = None) -> None:
        content = _Content.read(self.path, self.routes)
        for own, before, after, places in self._plan(model, content):
            # To the bit as it was where nothing changed, also where the file is more exact than the model.
            for place in () if torch.equal(after.detach().cpu(), before) else places:
                _put(after, place, self.path, own)
        self._verify(model, content)
        content.write(out, dict(training or {}))

    def _plan(self, model: Restorer, content: _Content) -> list[tuple[str, Tensor, Tensor, list[Tensor]]]:
        """Return every tensor that comes from the file: its name, as loaded, as in the model, and its places there."""
        chosen = self._chosen(content)
        before = self._built(chosen)
        told_apart = _told_apart(chosen)
        try:
            probed = self.rebuild(told_apart)
        except Exception:  # A layout that is read from small tensors is refused by any class of error.
            told_apart |= {name: chosen[name] for name, tensor in told_apart.items() if tensor.numel() < _SMALL}
            probed = self._built(told_apart)
        sources: dict[tuple[int, bytes], list[str]] = {}
        for name, tensor in told_apart.items():
            sources.setdefault(_identity(tensor), []).append(name)
        used = {_identity(tensor) for tensor in probed.values()}
        tensors = model.state_dict()
        prefix = _prefix(tensors, before)
        sets = content.sets(self.names)
        if prefix is None:
            raise self._refused("the model has other tensors than those that were loaded from it")
        plan: list[tuple[str, Tensor, Tensor, list[Tensor]]] = []
        for own, tensor in probed.items():
            found = sources.get(_identity(tensor), [])
            # Values that several entries share, such as those of mean shifts, are told apart by their names.
            found = [name for name in found if name == own.removeprefix("network.")] or found
            # Of tied weights the file has several entries, of which one was taken; all of them are written.
            alias = own.removeprefix("network.")
            if found and alias in self.names and alias not in found and _identity(told_apart[alias]) not in used:
                found = [*found, alias]
            if found:
                places = [state[name] for state in sets for name in found]
                plan.append((own, before[own], tensors[prefix + own], places))
            elif not torch.equal(tensor, before[own]):
                raise self._refused(f"{own} is computed from its entries on loading, and cannot be taken back")
            elif not torch.equal(tensors[prefix + own].detach().cpu(), before[own]):
                raise self._refused(f"{own} was changed, and the file has no entry for it")
        return plan

    def _chosen(self, content: _Content) -> State:
        missing = [key for key in self.names.values() if key not in content.state]
        if missing:
            raise self._refused(f"it has changed since it was loaded, and has no {missing[0]} any more")
        return {name: content.state[key] for name, key in self.names.items()}

    def _built(self, state: State) -> State:
        try:
            return self.rebuild(state)
        except Exception as error:  # A network of somebody else can raise anything.
            raise self._refused(f"it cannot be read in again: {class_and_line(error)}") from error

    def _verify(self, model: Restorer, content: _Content) -> None:
        """Refuse what would load to another model than the one that is written."""
        again, tensors = self._built(self._chosen(content)), model.state_dict()
        prefix = _prefix(tensors, again) or ""
        for own, tensor in again.items():
            wanted = tensors[prefix + own].detach().cpu()
            if not torch.allclose(tensor.float(), wanted.float(), rtol=1e-2, atol=1e-3 * float(wanted.abs().max())):
                raise self._refused(f"{own} would come back as another tensor, as where two share one entry")

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(f"weights cannot be written back to {self.path.name}: {why}")


def origin_of(path: Path, reading: Reading, taken: State, rebuild: Rebuild, note: str = "") -> FileOrigin:
    """Return the origin of weights that were taken from a file, the same tensors under other names."""
    keys = {id(tensor): name for name, tensor in reading.source.state.items()}
    names = {name: keys[id(tensor)] for name, tensor in taken.items()}
    source = reading.source
    return FileOrigin(
        path, names, rebuild, note, (source.route,) if source.rest is None else (source.route, source.rest)
    )


@dataclasses.dataclass(frozen=True)
class _Content:
    """What a weights file holds.

    Attributes:
        whole: all of it.
        all_sets: of weights in it.
        state: the weights that are loaded, by their names in the file.
        metadata: of a safetensors file; None for a checkpoint of PyTorch.
        zipped: whether a checkpoint is a zip archive, as since PyTorch 1.6.
    """

    whole: object
    all_sets: list[WeightSet]
    state: State
    metadata: dict[str, str] | None
    zipped: bool = True

    @staticmethod
    def read(path: Path, routes: tuple[tuple[str, ...], ...]) -> _Content:
        if not path.is_file():
            raise CheckpointError(f"no file {path} any more, to write weights back to")
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
            return _Content(state, [WeightSet((), state)], state, read_metadata(path))
        whole = read_checkpoint(path)
        sets = find_sets(whole, path.name)
        by_route = {one.route: one.state for one in sets}
        state = {key: tensor for route in reversed(routes) for key, tensor in by_route.get(route, {}).items()}
        return _Content(whole, sets, state, None, zipfile.is_zipfile(path))

    def sets(self, names: Mapping[str, str]) -> list[State]:
        """Return, by their names in the network, the weights that are loaded, and all others of the same shapes."""
        chosen = {name: self.state[key] for name, key in names.items()}
        shapes = {name: tensor.shape for name, tensor in chosen.items()}
        found = [chosen]
        taken = {id(tensor) for tensor in chosen.values()}
        for reading in readings(self.all_sets):
            if reading.beside:
                continue
            same = {name: reading.state[name] for name in shapes if name in reading.state}
            if {name: tensor.shape for name, tensor in same.items()} == shapes:
                found += [same] if {id(tensor) for tensor in same.values()} - taken else []
                taken |= {id(tensor) for tensor in same.values()}
        return found

    def write(self, out: Path, training: dict[str, object]) -> None:
        if self.metadata is None:
            save_archive(self.whole, out, zipped=self.zipped)
            return
        metadata = dict(self.metadata)
        if "card" in metadata:
            card = json.loads(metadata["card"])
            card |= {"sha256": weights_sha256(self.state), "training": {**card.get("training", {}), **training}}
            metadata["card"] = json.dumps(card, sort_keys=True)
        content = save(self.state, metadata or None)
        write_atomically(out, lambda path: path.write_bytes(content))


def _told_apart(state: State) -> State:
    """Return other values for all weights, none of them the same in two entries."""
    generator = torch.Generator().manual_seed(0)
    found: State = {}
    scalars = 0
    for name, tensor in state.items():
        if not tensor.is_floating_point() or any(part in name for part in _TELLING):
            found[name] = tensor
        elif tensor.numel() == 1:
            # Of short types too no two are the same.
            known = torch.linspace(0.125, 2.0, 4096).to(tensor.dtype).unique()
            found[name] = known[scalars % len(known)].reshape(tensor.shape)
            scalars += 1
        else:
            found[name] = (torch.rand(tensor.shape, generator=generator) + 0.25).to(tensor.dtype)
    return found


def _identity(tensor: Tensor) -> tuple[int, bytes]:
    """Return what two tensors of the same values have in common, whatever their types and shapes."""
    flat = tensor.detach().cpu().to(torch.float32).contiguous().flatten()
    return len(flat), flat.numpy().tobytes()


def _prefix(tensors: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> str | None:
    """Return what stands before the names in a model, which may be wrapped since."""
    first = next(iter(names))
    for name in tensors:
        prefix = name.removesuffix(first)
        if name.endswith(first) and all(prefix + other in tensors for other in names):
            return prefix
    return None


def _put(value: Tensor, place: Tensor, path: Path, name: str) -> None:
    """Write values into a tensor of the file, in its type and order in memory."""
    if not value.isfinite().all():
        raise CheckpointError(f"weights cannot be written back to {path.name}: {name} is not finite")
    with torch.no_grad():
        place.copy_(value.detach().cpu().reshape(place.shape))
    if not place.isfinite().all():
        kind = str(place.dtype).removeprefix("torch.")
        raise CheckpointError(f"weights cannot be written back to {path.name}: {name} is too large for {kind}")
