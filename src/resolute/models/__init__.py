"""What is judged: super-resolution models and quality metrics, built in, from a file, or of the user's own."""

from resolute.models.base import Card, Origin, Restorer, Scorer, ScorerCard, SplitRestorer
from resolute.models.brisque import BRISQUE
from resolute.models.carn import CARN
from resolute.models.edsr import EDSR
from resolute.models.efficientnet import EfficientNetScorer
from resolute.models.function import as_scorer
from resolute.models.mobilenet import MobileNetScorer
from resolute.models.msrn import MSRN
from resolute.models.niqe import NIQE
from resolute.models.probe import probe
from resolute.models.quality import QualityNet
from resolute.models.rcan import RCAN
from resolute.models.registry import Bicubic, built_in_models, load
from resolute.models.scorers import built_in_scorers, load_scorer
from resolute.models.srresnet import SRResNet
from resolute.models.tiling import Tiled
from resolute.models.wrapped import as_restorer

__all__ = [
    "BRISQUE", "CARN", "EDSR", "MSRN", "NIQE", "RCAN", "Bicubic", "Card", "EfficientNetScorer", "MobileNetScorer",
    "Origin", "QualityNet", "Restorer", "SRResNet", "Scorer", "ScorerCard", "SplitRestorer", "Tiled", "as_restorer",
    "as_scorer", "built_in_models", "built_in_scorers", "load", "load_scorer", "probe",
]  # fmt: skip
