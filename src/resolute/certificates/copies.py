"""A function of noisy copies of an image, block by block, the same however many threads there are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Arithmetic
from resolute.certificates.noise import Noise

# Samples between two looks at a stop rule, and the batch of a GPU. Fixed, so that no option can change a number.
BLOCK = 32

Function = Callable[[Float[Tensor, "b 3 h w"]], Tensor]


@contextlib.contextmanager
def running(
    function: Function,
    noise: Noise,
    image: Float[Tensor, "3 h w"],
    n: int,
    precision: Arithmetic = "float32",
    together: int = 1,
) -> Generator[Callable[[int], Tensor]]:
    """Yield what runs a function on the block of n noisy copies that begins at an index.

    A function gives a row for every copy; the 32 rows of a block, fewer at the end, come on the CPU.

    On a CPU a batch is of ``together`` copies, a divisor of 32, and run by one thread, several batches side by side:
    kernels add up in another order at other batch sizes and thread counts, so that the last batch is as large as the
    others, whatever is in the rest of it. For the same reason the caller's own sums are made by one thread meanwhile.
    Elsewhere a block is one batch, always of the same size.
    """

    def forward(copies: Float[Tensor, "b 3 h w"]) -> Tensor:
        fast = precision == "bfloat16"
        with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=fast):
            return function(copies)

    if image.device.type != "cpu":
        copies = _copies(BLOCK, image)

        def batched(first: int) -> Tensor:
            noise.fill(copies, first)
            return forward(copies)[: n - first].cpu()

        yield batched
        return

    threads = torch.get_num_threads()
    local = threading.local()

    def prepare() -> None:
        torch.set_num_threads(1)
        local.copies = _copies(together, image).zero_()

    def batch(first: int) -> Tensor:
        count = min(together, n - first)
        noise.fill(local.copies[:count], first)
        return forward(local.copies)[:count]

    def threaded(first: int) -> Tensor:
        return torch.cat(list(each(batch, range(first, min(first + BLOCK, n), together))))

    if threads == 1:  # where others would only be in its way
        prepare()
        each = map
        yield threaded
        return
    try:
        with ThreadPoolExecutor(threads, initializer=prepare) as pool:
            each = pool.map
            torch.set_num_threads(1)
            yield threaded
    finally:
        torch.set_num_threads(threads)


def _copies(count: int, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "b 3 h w"]:
    return torch.empty((count, *image.shape), device=image.device, memory_format=torch.channels_last)
