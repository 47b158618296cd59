"""What is judged: super-resolution models, built in or from a file."""

from resolute.models.base import Card, Restorer
from resolute.models.edsr import EDSR
from resolute.models.registry import Bicubic, built_in_models, load

__all__ = ["EDSR", "Bicubic", "Card", "Restorer", "built_in_models", "load"]
