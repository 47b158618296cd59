"""Training from recipes, plain or with a defence."""

from resolute.training.loop import Trained, train
from resolute.training.recipe import Recipe

__all__ = ["Recipe", "Trained", "train"]
