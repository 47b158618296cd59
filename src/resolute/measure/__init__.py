"""Measures: fidelity, sensitivity, and how sure a mean is."""

from resolute.measure.clever import Clever, clever
from resolute.measure.fidelity import psnr_rgb, psnr_y, ssim_y
from resolute.measure.intervals import Interval, bootstrap_mean

__all__ = ["Clever", "Interval", "bootstrap_mean", "clever", "psnr_rgb", "psnr_y", "ssim_y"]
