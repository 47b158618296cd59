"""Certificates: proven intervals for smoothed scores, and for what smoothed super-resolution models output."""

from resolute.certificates.certificate import Bounds, Certificate, Smoothing
from resolute.certificates.faithfulness import Faithfulness, Nudges, faithful
from resolute.certificates.gap import Calibration, Finding, Screening, audit, calibrate
from resolute.certificates.median import DenoisedScorer, ExpectedScore, certify, decided_at, width_below
from resolute.certificates.order_statistics import Ranks
from resolute.certificates.restoration import certify_restoration
from resolute.certificates.restored import JointBounds, RestorationCertificate
from resolute.certificates.spread import Spread
from resolute.certificates.statistic import Statistic, downscaled, region_mean, score_of
from resolute.certificates.trust import Trust, calibrate_trust

__all__ = [
    "Bounds", "Calibration", "Certificate", "DenoisedScorer", "ExpectedScore", "Faithfulness", "Finding",
    "JointBounds", "Nudges", "Ranks", "RestorationCertificate", "Screening", "Smoothing", "Spread", "Statistic",
    "Trust", "audit", "calibrate", "calibrate_trust", "certify", "certify_restoration", "decided_at", "downscaled",
    "faithful", "region_mean", "score_of", "width_below",
]  # fmt: skip
