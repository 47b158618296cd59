"""Training from recipes: super-resolution models, quality metrics and denoisers; and hardening of what is there."""

from resolute.training.denoise_recipe import DenoiseRecipe
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.hardened import Hardening
from resolute.training.hardening import harden
from resolute.training.loop import Trained, train
from resolute.training.recipe import read_recipe
from resolute.training.restore_recipe import Recipe
from resolute.training.score_recipe import ScoreRecipe

__all__ = [
    "DenoiseRecipe", "HardenRecipe", "Hardening", "Recipe", "ScoreRecipe", "Trained", "harden", "read_recipe",
    "train",
]  # fmt: skip
