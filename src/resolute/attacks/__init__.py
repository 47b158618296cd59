"""Attacks: an objective climbed inside a ball. One loop, and a small frozen dataclass for each method."""

from resolute.attacks.adaptive import Bits, read_density
from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Adversarial, Ascent, Attack, GradientAttack
from resolute.attacks.ball import L2, Ball, Linf, Masked, Rectangle
from resolute.attacks.batch import Job, attack_all
from resolute.attacks.gradient import FDA, FGSM, IFGSM, MIFGSM, PGD
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import FeatureDisruption, FeatureShift, Objective, OutputShift, RegionShift, ScoreGain
from resolute.attacks.partial import Partial
from resolute.attacks.score import ScoreAttack
from resolute.attacks.square import Square
from resolute.attacks.targeted import (
    Given,
    OutputOf,
    Picture,
    ReferenceShift,
    SavedOutput,
    TargetDistance,
    Truth,
    with_truth,
)
from resolute.attacks.transfer import Source, Transfer, WarmStart, WorstOf
from resolute.attacks.universal import perturbed, universal
from resolute.attacks.unseen import MADC, Korhonen

__all__ = [
    "APGD", "FDA", "FGSM", "IFGSM", "L2", "MADC", "MIFGSM", "PGD", "Adversarial", "Ascent", "Attack", "Ball", "Bits",
    "FeatureDisruption", "FeatureShift", "Given", "GradientAttack", "Job", "Korhonen", "Linf", "Masked", "Objective",
    "OutputOf", "OutputShift", "Partial", "Picture", "RandomNoise", "Rectangle", "ReferenceShift", "RegionShift",
    "SavedOutput", "ScoreAttack", "ScoreGain", "Source", "Square", "TargetDistance", "Transfer", "Truth", "WarmStart",
    "WorstOf", "attack_all", "perturbed", "read_density", "universal", "with_truth",
]  # fmt: skip
