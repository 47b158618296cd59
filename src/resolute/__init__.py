"""Resolute measures, hardens and certifies image models against adversarial perturbations.

Super-resolution models are attacked and hardened; the scores of image-quality metrics get proven intervals
(``resolute.certify``).

Images are RGB float in [0, 1], ``(batch, 3, height, width)``, everywhere.

Example:
    >>> import resolute
    >>> model = resolute.load("edsr-s")
    >>> x = resolute.sample_image("coffee")[None, :, :32, :32]
    >>> attacked = resolute.IFGSM(epsilon=4 / 255, steps=5)(model, x)
    >>> sr_psnr = resolute.psnr_rgb(model(x), model(attacked.images))
"""

__version__ = "0.1.0"

from resolute.attacks import (
    FDA,
    FGSM,
    IFGSM,
    L2,
    PGD,
    Adversarial,
    Ascent,
    Attack,
    Ball,
    FeatureDisruption,
    FeatureShift,
    Linf,
    Objective,
    OutputShift,
)
from resolute.certify import Certificate, DenoisedScorer
from resolute.defences import ChannelDensity, EntropyRegularizer
from resolute.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    OutputError,
    ResoluteError,
    TrainingError,
)
from resolute.images import read_image, sample_image, write_png
from resolute.measure import (
    Clever,
    Interval,
    bootstrap_mean,
    clever,
    psnr_rgb,
    psnr_y,
    ssim_y,
)
from resolute.models import (
    EDSR,
    Bicubic,
    Card,
    QualityNet,
    Restorer,
    Scorer,
    ScorerCard,
    as_scorer,
    load,
    load_scorer,
)
from resolute.models.denoisers import DnCNN, UNet
from resolute.report import write_markdown, write_report
from resolute.resize import downscale, mod_crop, upscale, upscale_tensor
from resolute.studies import (
    Record,
    Store,
    Study,
    compare,
    summarize,
    verdict,
    worst_case,
)
from resolute.training import DenoiseRecipe, Recipe, ScoreRecipe, Trained, read_recipe, train

__all__ = [
    "EDSR",
    "FDA",
    "FGSM",
    "IFGSM",
    "L2",
    "PGD",
    "Adversarial",
    "Ascent",
    "Attack",
    "Ball",
    "Bicubic",
    "Card",
    "Certificate",
    "ChannelDensity",
    "CheckpointError",
    "Clever",
    "ConfigError",
    "DenoiseRecipe",
    "DenoisedScorer",
    "DnCNN",
    "EntropyRegularizer",
    "FeatureDisruption",
    "FeatureShift",
    "ImageError",
    "Interval",
    "Linf",
    "Objective",
    "OutputError",
    "OutputShift",
    "QualityNet",
    "Recipe",
    "Record",
    "ResoluteError",
    "Restorer",
    "ScoreRecipe",
    "Scorer",
    "ScorerCard",
    "Store",
    "Study",
    "Trained",
    "TrainingError",
    "UNet",
    "__version__",
    "as_scorer",
    "bootstrap_mean",
    "clever",
    "compare",
    "downscale",
    "load",
    "load_scorer",
    "mod_crop",
    "psnr_rgb",
    "psnr_y",
    "read_image",
    "read_recipe",
    "sample_image",
    "ssim_y",
    "summarize",
    "train",
    "upscale",
    "upscale_tensor",
    "verdict",
    "worst_case",
    "write_markdown",
    "write_png",
    "write_report",
]
