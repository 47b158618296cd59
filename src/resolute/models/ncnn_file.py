"""Networks of ncnn (github.com/Tencent/ncnn) in two files: layers as text in a ``.param``, weights in a ``.bin``.

Each line of the first is a layer: its type, its name, the numbers of its inputs and outputs, their names, and options
as ``ID=VALUE``, with IDs whose meaning depends on the type. The second holds the weights of all layers one after
another.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from resolute.errors import CheckpointError
from resolute.models.contents import unreadable

_MAGIC = "7767517"

# An array has the ID of its option below this, with a minus before it; its first value is its length.
_ARRAYS = 23300

# What stands before weights of which each has a storage of its own.
_HALVES, _BYTES = 0x01306B47, 0x000D4B38

# That all layers have: which kinds of arithmetic a processor may not use for them.
_MASK = 31


@final
@dataclasses.dataclass(frozen=True)
class NcnnLayer:
    """A line of a ``.param`` file.

    Attributes:
        kind: type of the layer.
        name: of the layer.
        inputs, outputs: names of what goes in and what comes out.
        options: by their IDs; those that are no arrays hold one value.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[int, tuple[float, ...]]


@final
@dataclasses.dataclass(frozen=True)
class NcnnFile:
    """What the two files hold.

    Attributes:
        name: of the ``.param`` file.
        layers: in the order in which they run.
        weights: content of the ``.bin`` file.
    """

    name: str
    layers: tuple[NcnnLayer, ...]
    weights: bytes


def read_ncnn(path: Path) -> NcnnFile:
    """Read a ``.param`` file and the ``.bin`` file beside it.

    Raises:
        CheckpointError: one of them cannot be read, or the first is none.
    """
    text, weights = _content(path), _content(path.with_suffix(".bin"))
    return NcnnFile(path.name, parse(text, path.name), weights)


def require_param(path: Path) -> None:
    """Refuse a file that is no ``.param`` file by its first line.

    Raises:
        CheckpointError: it is none; the text says what it holds.
    """
    if not _content(path).lstrip().startswith(_MAGIC.encode()):
        raise unreadable(path, ".param file of ncnn in its text form", "its first line is another")


def parse(text: bytes, file: str) -> tuple[NcnnLayer, ...]:
    r"""Return the layers in a ``.param`` file; ``file`` is what errors call it.

    Raises:
        CheckpointError: it is no such file.

    Example:
        >>> layer = parse(b"7767517\n1 1\nConvolution conv 1 1 data out 0=3 -23310=1,2e-1", "x.param")[0]
        >>> layer.kind, layer.inputs, layer.outputs, layer.options
        ('Convolution', ('data',), ('out',), {0: (3.0,), 10: (0.2,)})
    """
    try:
        magic, counts, *lines = [line for line in text.decode().splitlines() if line.strip()]
        if magic.strip() != _MAGIC:
            raise ValueError("its first line is another")
        if len(lines) != int(counts.split()[0]):
            raise ValueError(f"it has {len(lines)} layers of {counts.split()[0]}")
        return tuple(map(_layer, lines))
    except (ValueError, IndexError) as error:  # Of no text as well.
        raise CheckpointError(
            f"{file} is no .param file of ncnn ({str(error)[:80]}); give the text form, and not .param.bin"
        ) from None


def _layer(line: str) -> NcnnLayer:
    kind, name, ins, outs, *rest = line.split()
    first, last = int(ins), int(ins) + int(outs)
    if not 0 <= first <= last <= len(rest):
        raise ValueError(line)
    options: dict[int, tuple[float, ...]] = {}
    for option in rest[last:]:
        key, _, value = option.partition("=")
        number, values = int(key), tuple(map(float, value.split(",")))
        if number <= -_ARRAYS:
            if len(values) != values[0] + 1:
                raise ValueError(line)
            number, values = -number - _ARRAYS, values[1:]
        options[number] = values
    return NcnnLayer(kind, name, tuple(rest[:first]), tuple(rest[first:last]), options)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from None


@final
class Options:
    """The options of a layer: each is asked for once, and what nobody asked for is told.

    Args:
        layer: the layer.
        file: what errors call its file.
    """

    def __init__(self, layer: NcnnLayer, file: str) -> None:
        self._left = dict(layer.options)
        self._left.pop(_MASK, None)
        self._called = f"{file}: {layer.kind} {layer.name}"

    def whole(self, key: int, otherwise: int = 0) -> int:
        """Return a whole number."""
        value = self.real(key, otherwise)
        if value != value // 1 or abs(value) > 2**31:
            raise self.refused(f"has {value:g} as its option {key}, where a whole number is")
        return int(value)

    def real(self, key: int, otherwise: float = 0.0) -> float:
        """Return a number."""
        values = self.array(key, otherwise)
        if len(values) != 1:
            raise self.refused(f"has {len(values)} values for its option {key}, where there is one")
        return values[0]

    def array(self, key: int, *otherwise: float) -> tuple[float, ...]:
        """Return an array of numbers."""
        return self._left.pop(key, otherwise)

    def refuse_others(self) -> None:
        """Refuse a layer with options that nobody asked for, unless they are zero, which is to leave them out."""
        others = [f"{key}={','.join(f'{one:g}' for one in value)}" for key, value in self._left.items() if any(value)]
        if others:
            raise self.refused(f"has the option {others[0]}, which is not known here")

    def refused(self, why: str) -> CheckpointError:
        """Return the error that says why a layer cannot be built."""
        return CheckpointError(f"{self._called} {why}; give the network as PyTorch weights or ONNX instead")


@final
class Weights:
    """The weights of a ``.bin`` file, read from its start to its end.

    Args:
        file: the files.
    """

    def __init__(self, file: NcnnFile) -> None:
        self._left, self._file = memoryview(file.weights), file.name

    def stored(self, *shape: int) -> Tensor:
        """Return the next weights that say in front how they are stored, as float32.

        Raises:
            CheckpointError: they are missing, no floating-point numbers or not finite.
        """
        flag = int(np.frombuffer(self._bytes(4), "<u4")[0])
        if flag == 0:
            return self.plain(*shape)
        if flag != _HALVES:
            what = "int8" if flag == _BYTES else "quantised or damaged"
            raise CheckpointError(
                f"{self._file}: its weights are {what}; give the files from before quantisation, of float16 or float32"
            )
        return self._tensor("<f2", shape)

    def plain(self, *shape: int) -> Tensor:
        """Return the next float32 weights; errors as above."""
        return self._tensor("<f4", shape)

    def refuse_others(self) -> None:
        """Refuse a file that holds more than was asked for."""
        if self._left:
            raise CheckpointError(
                f"{self._file}: its .bin holds {len(self._left)} bytes more than its layers take; they belong to "
                "different networks"
            )

    def _tensor(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        size = np.dtype(kind).itemsize
        count = int(np.prod([int(side) for side in shape], dtype=object)) if min(shape) > 0 else 0
        # Halves are filled up to whole words.
        content = self._bytes(-(-count * size // 4) * 4)
        values = torch.from_numpy(np.frombuffer(content, kind, count).astype(np.float32)).reshape(shape)
        if not values.isfinite().all():
            raise CheckpointError(f"{self._file}: its weights are not finite; copy or download it again")
        return values

    def _bytes(self, count: int) -> memoryview:
        if not 0 < count <= len(self._left):
            raise CheckpointError(
                f"{self._file}: its .bin holds fewer weights than its layers take; they belong to different networks, "
                "or one is damaged: copy or download both again"
            )
        taken, self._left = self._left[:count], self._left[count:]
        return taken
