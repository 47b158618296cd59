"""Random streams keyed by what they are for, so that batch size, order, workers and resume cannot change a number."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *key: object) -> int:
    """Return a 63-bit seed for the stream named by ``key``.

    Example:
        >>> stream_seed(0, "start", 1) == stream_seed(0, "start", 1) != stream_seed(0, "start", 2)
        True
    """
    text = "/".join([str(seed), *(str(part) for part in key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for the stream named by ``key``."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *key))
