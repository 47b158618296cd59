"""Certificates: proven intervals for smoothed scores."""

from resolute.certify.certificate import Bounds, Certificate, Smoothing
from resolute.certify.median import DenoisedScorer, ExpectedScore, certify, decided_at, width_below
from resolute.certify.order_statistics import Ranks

__all__ = [
    "Bounds",
    "Certificate",
    "DenoisedScorer",
    "ExpectedScore",
    "Ranks",
    "Smoothing",
    "certify",
    "decided_at",
    "width_below",
]
