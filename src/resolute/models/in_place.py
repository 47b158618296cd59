"""Activations that write into their input: made to give new tensors, where the network's code does not count on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor, nn


def nothing_in_place(network: nn.Module, kept: Collection[str] = ()) -> None:
    """Let the activations of a network give new tensors, but for those of the names given."""
    for name, module in _in_place(network):
        cast("Any", module).inplace = name in kept


def free_activations(network: nn.Module, run: Callable[[], Tensor]) -> frozenset[str]:
    """Let activations give new tensors, and return the names of those that go on writing into their input.

    They do where that changes the output: where code uses the input again, as activated as it is by then.

    Args:
        network: the module.
        run: runs it on a sample.
    """
    found = list(_in_place(network))
    if not found:
        return frozenset()
    expected = run()
    kept = {name for name, _ in found}
    nothing_in_place(network)
    if _same(run(), expected):
        return frozenset()
    for _, module in found:
        cast("Any", module).inplace = True
    for name, module in found:
        cast("Any", module).inplace = False
        if _same(run(), expected):
            kept.remove(name)
        else:
            cast("Any", module).inplace = True
    return frozenset(kept)


def _in_place(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in network.named_modules() if getattr(module, "inplace", False) is True]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
