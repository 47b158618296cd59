"""Certificates: proven intervals for smoothed scores."""

from resolute.certificates.certificate import Bounds, Certificate, Smoothing
from resolute.certificates.median import DenoisedScorer, ExpectedScore, certify, decided_at, width_below
from resolute.certificates.order_statistics import Ranks

__all__ = [
    "Bounds", "Certificate", "DenoisedScorer", "ExpectedScore", "Ranks", "Smoothing", "certify", "decided_at",
    "width_below",
]  # fmt: skip
