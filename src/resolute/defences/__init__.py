"""Defences: what makes a model harder to move."""

from resolute.defences.entropy import ChannelDensity, EntropyRegularizer

__all__ = ["ChannelDensity", "EntropyRegularizer"]
