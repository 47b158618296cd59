import dataclasses
from pathlib import Path
from typing import final

from torch.nn import Identity, functional

from resolute import Ascent, GradientAttack, Linf
from resolute.models import SplitRestorer


@dataclasses.dataclass(frozen=True)
class Redness:
    """Mean red minus mean green and blue of the output."""

    def bind(self, model, clean):
        def redness(x):
            red, green, blue = model(x).mean(dim=(2, 3)).unbind(dim=1)
            return red - (green + blue) / 2

        return redness


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourCast(GradientAttack):
    """Tint the output red with a perturbation of at most epsilon a pixel."""

    steps: int = 10
    reach: float = 2.0

    def ascent(self):
        return Ascent(
            objective=Redness(),
            ball=Linf(self.epsilon),
            steps=self.steps,
            step_size=self.reach * self.epsilon / self.steps,
            start="zero",
        )


@final
class Nearest(SplitRestorer):
    """Repeat every pixel twice."""

    feature_layer = "image"

    def __init__(self):
        super().__init__(scale=2)
        self.image = Identity()

    def arguments(self):
        return {"class": "Nearest"}

    def features(self, x):
        return self.image(x)

    def reconstruct(self, phi):
        return functional.interpolate(phi, scale_factor=2.0)


def cats():
    """Return the folder of a data set, which a real package would look for or fetch."""
    return Path.home() / "cats"
