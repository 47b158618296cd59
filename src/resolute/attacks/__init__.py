"""Attacks: an objective climbed inside a ball. One loop, and a small frozen dataclass for each method."""

from resolute.attacks.ascent import Adversarial, Ascent, Attack
from resolute.attacks.ball import L2, Ball, Linf
from resolute.attacks.feature import FDA
from resolute.attacks.gradient import FGSM, IFGSM, PGD
from resolute.attacks.objective import FeatureDisruption, FeatureShift, Objective, OutputShift, ScoreGain

__all__ = [
    "FDA",
    "FGSM",
    "IFGSM",
    "L2",
    "PGD",
    "Adversarial",
    "Ascent",
    "Attack",
    "Ball",
    "FeatureDisruption",
    "FeatureShift",
    "Linf",
    "Objective",
    "OutputShift",
    "ScoreGain",
]
