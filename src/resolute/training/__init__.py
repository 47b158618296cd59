"""Training from recipes: super-resolution models, quality metrics and denoisers."""

from resolute.training.denoise_recipe import DenoiseRecipe
from resolute.training.loop import Trained, train
from resolute.training.recipe import read_recipe
from resolute.training.restore_recipe import Recipe
from resolute.training.score_recipe import ScoreRecipe

__all__ = ["DenoiseRecipe", "Recipe", "ScoreRecipe", "Trained", "read_recipe", "train"]
