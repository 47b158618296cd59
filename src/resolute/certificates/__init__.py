"""Certificates: proven intervals for smoothed scores."""

from resolute.certificates.certificate import Bounds, Certificate, Smoothing
from resolute.certificates.gap import Calibration, Finding, Screening, audit, calibrate
from resolute.certificates.median import DenoisedScorer, ExpectedScore, certify, decided_at, width_below
from resolute.certificates.order_statistics import Ranks

__all__ = [
    "Bounds", "Calibration", "Certificate", "DenoisedScorer", "ExpectedScore", "Finding", "Ranks", "Screening",
    "Smoothing", "audit", "calibrate", "certify", "decided_at", "width_below",
]  # fmt: skip
