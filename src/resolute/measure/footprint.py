"""How much memory a model needs while it runs, counted rather than felt, so that it is the same on every machine."""

from __future__ import annotations

import weakref
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resolute.models.onnx_models import OnnxRestorer


@final
class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, for as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self._known | given:
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        self._known.add(place)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, place, size)

    def _freed(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def peak_bytes(model: nn.Module, x: Tensor) -> int | None:
    """Return the bytes of weights, input and of all tensors that are alive at once at most while a model runs.

    What kernels borrow for themselves is not in it. None of a model that is a file of ONNX, or has one in it: that runs
    outside PyTorch, where nothing is counted.

    Example:
        >>> two = nn.Sequential(nn.ReLU(), nn.ReLU())
        >>> peak_bytes(two, torch.zeros(100)) / 400  # input, the first output, and the second
        3.0
    """
    if any(isinstance(part, OnnxRestorer) for part in model.modules()):
        return None
    own = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers())
    }
    own[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
    with torch.no_grad(), _Living() as living:
        model(x)
    return sum(own.values()) + living.most
