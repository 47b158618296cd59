"""Defences: what makes a model harder to move."""

from resolute.defences.calibration import match_clean_psnr
from resolute.defences.entropy import ChannelDensity, EntropyRegularizer
from resolute.defences.loading import load_defended
from resolute.defences.resizing import RandomResizing
from resolute.defences.wrappers import (
    Confined,
    Defended,
    Denoised,
    EightBit,
    LowPass,
    Mixture,
    OutputBlur,
    SelfEnsemble,
    surrogate,
    undefended,
)

__all__ = [
    "ChannelDensity", "Confined", "Defended", "Denoised", "EightBit", "EntropyRegularizer", "LowPass", "Mixture",
    "OutputBlur", "RandomResizing", "SelfEnsemble", "load_defended", "match_clean_psnr", "surrogate", "undefended",
]  # fmt: skip
