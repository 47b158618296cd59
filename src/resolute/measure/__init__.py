"""Measures: fidelity, sensitivity, and how sure a mean is."""

from resolute.measure.agreement import (
    Agreement,
    agreement_difference,
    agreement_interval,
    agreement_of,
    least_srocc,
    plcc,
    plcc_logistic,
    srocc,
)
from resolute.measure.clever import Clever, clever, clever_power
from resolute.measure.fidelity import psnr_rgb, psnr_y, ssim_y
from resolute.measure.gains import Gains, gains_of
from resolute.measure.intervals import Interval, bootstrap_mean
from resolute.measure.parts import Parts, parts_of

__all__ = [
    "Agreement", "Clever", "Gains", "Interval", "Parts", "agreement_difference", "agreement_interval", "agreement_of",
    "bootstrap_mean", "clever", "clever_power", "gains_of", "least_srocc", "parts_of", "plcc", "plcc_logistic",
    "psnr_rgb", "psnr_y", "srocc", "ssim_y",
]  # fmt: skip
