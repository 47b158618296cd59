"""Order statistics of very many values at once, in bounded memory: exactly, or within a proven bracket."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

# Of each value, between the ends that the first samples suggest; two more hold what falls beyond.
BINS = 254

_ROWS = 8192


@final
class Samples:
    """Samples of many values, asked for the k-th smallest of each.

    Where all samples fit into the memory they are kept, and ranks are exact. Otherwise every value has a histogram, and
    a rank is bracketed by the ends of the bin that holds it: whatever the bins are, ``X_(k)`` lies there, so the
    bracket is proven and only its width is a matter of luck. The bins span three times the range of the first samples.

    Attributes:
        exact: whether ranks are exact.
        kept: so many of the samples are kept, from the first on.
        rows: the samples kept, ``(kept, size)``, in the order drawn until ``settle``, then sorted where ``exact``.

    Args:
        n: samples to come.
        size: values of each.
        memory: bytes that may be taken.
        low, high: what no value leaves; the ends of a bracket beyond all bins.

    Raises:
        MemoryError: not even the histograms fit.

    Example:
        >>> samples = Samples(5, 1, memory=10_000)
        >>> samples.add(torch.tensor([[0.1], [0.5], [0.2], [0.4], [0.3]]))
        >>> samples.settle()
        >>> [round(end.item(), 2) for end in samples.bracket(2)]
        [0.2, 0.2]
    """

    def __init__(self, n: int, size: int, memory: int, low: float = 0.0, high: float = 1.0) -> None:
        self.n, self.low, self.high = n, low, high
        self.exact = 4 * n * size <= memory
        counter = torch.int16 if n < 2**15 else torch.int32
        histograms = 0 if self.exact else size * (BINS + 2) * counter.itemsize
        require_memory(n, size, memory)
        self.kept = n if self.exact else (memory - histograms) // (4 * size)
        self.rows = torch.empty(self.kept, size)
        self.counts = torch.zeros(0 if self.exact else size, BINS + 2, dtype=counter)
        self.start = self.step = torch.empty(0, dtype=torch.float64)
        self.done = 0

    def add(self, block: Float[Tensor, "b size"]) -> None:
        """Take samples; the first block decides where bins lie."""
        kept = block[: max(0, self.kept - self.done)]
        self.rows[self.done : self.done + len(kept)] = kept
        if not self.exact:
            if self.done == 0:
                first, last = block.amin(dim=0).double(), block.amax(dim=0).double()
                self.step = ((last - first) * 3 / BINS).clamp_min(1e-9)
                self.start = first - (last - first)
            one = torch.ones((), dtype=self.counts.dtype)
            # By parts, for the places of a whole block take more memory than the block.
            parts = (part.split(_ROWS) for part in (block.T, self.start, self.step, self.counts))
            for values, start, step, counts in zip(*parts, strict=True):
                places = ((values.double() - start[:, None]) / step[:, None]).floor_().clamp_(-1, BINS).long() + 1
                counts.scatter_add_(1, places, one.expand_as(places))
        self.done += len(block)

    def settle(self) -> None:
        """Say that all samples are there; those that are kept may be sorted now."""
        for first in range(0, self.rows.shape[1] if self.exact else 0, _ROWS):
            part = self.rows[:, first : first + _ROWS]
            part.copy_(torch.from_numpy(_sorted(part.T.contiguous())).T)

    def bracket(self, rank: int) -> tuple[Float[Tensor, " size"], Float[Tensor, " size"]]:
        """Return what the rank-th smallest of each value, counted from 1, is not below and not above."""
        if self.exact:
            return self.rows[rank - 1], self.rows[rank - 1]
        places = torch.cat([(part.cumsum(1) < rank).sum(1) for part in self.counts.split(_ROWS)])
        # A value on an edge may be counted on its other side; a millionth of a bin is more than rounding does.
        lower = self.start + (places - 1 - 1e-6) * self.step
        upper = self.start + (places + 1e-6) * self.step
        lower[places == 0], upper[places == BINS + 1] = self.low, self.high
        low, high = (torch.nextafter(end.float(), torch.tensor(to)) for end, to in ((lower, -1e9), (upper, 1e9)))
        return low.clamp(self.low, self.high), high.clamp(self.low, self.high)


def require_memory(n: int, size: int, memory: int) -> None:
    """Refuse so many samples of so many values where not even histograms of them fit.

    Raises:
        MemoryError: they do not.

    Example:
        >>> require_memory(1000, 3 * 1920 * 1280, 2**30)
        Traceback (most recent call last):
        MemoryError: histograms of 7,372,800 output values take 3775 MB, and 1074 are allowed: ...
    """
    least = min(4 * n, (BINS + 2) * (2 if n < 2**15 else 4)) * size
    if least > memory:
        raise MemoryError(
            f"histograms of {size:,} output values take {least / 1e6:.0f} MB, and {memory / 1e6:.0f} are allowed: "
            "allow more memory, or cut the image"
        )


def _sorted(columns: Float[Tensor, "size n"]) -> NDArray[np.float32]:
    values = columns.numpy()
    values.sort(axis=1)
    return values
