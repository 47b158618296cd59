"""BRISQUE (Mittal et al., IEEE TIP 2012): statistics of natural images and a support vector regression."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.errors import CheckpointError, first_line
from resolute.images import sample_image
from resolute.models.base import Scorer
from resolute.models.naturalness import (
    asymmetric_fit,
    gamma_ratio,
    luminance,
    neighbour_products,
    normalize_locally,
    symmetric_fit,
)
from resolute.resize import downscale_tensor


class BRISQUE(Scorer):
    """A classical metric without a network: 36 statistics at two scales, and a regression on ratings.

    As published lower is better. Regressions on scores that rise with quality are in circulation too, and nothing in
    their files tells, so ``read`` looks at what the regression says of a photograph and of its blurred copy.

    Args:
        vectors: support vectors.
        coefficients: one a support vector.
        ranges: least and greatest value of every statistic in training, which are mapped to -1 and 1.
        rho: subtracted from the regression.
        gamma: of the radial basis functions ``exp(-gamma * distance^2)``.
        lower_better: True where the regression is on degradation, as published.

    Raises:
        ImageError: images below 16 pixels a side, when called.
    """

    usual = (0.0, 100.0)
    smallest = 16

    vectors: Tensor
    coefficients: Tensor
    ranges: Tensor
    rho: Tensor
    gamma: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, "n 36"],
        coefficients: Float[Tensor, " n"],
        ranges: Float[Tensor, "2 36"],
        rho: float,
        gamma: float,
        lower_better: bool = True,
    ) -> None:
        super().__init__()
        self.lower_better = lower_better
        self.register_buffer("vectors", vectors.double())
        self.register_buffer("coefficients", coefficients.double())
        self.register_buffer("ranges", ranges.double())
        self.register_buffer("rho", torch.tensor(rho, dtype=torch.float64))
        self.register_buffer("gamma", torch.tensor(gamma, dtype=torch.float64))

    @classmethod
    def read(cls, folder: Path) -> BRISQUE:
        """Read ``piq_svm_model.mat``, a model of LIBSVM, and ``piq_scale.mat``, the ranges of its inputs.

        Raises:
            CheckpointError: a file is missing, damaged or something else.
        """
        from scipy import sparse  # slow to import, and seldom needed
        from scipy.io import loadmat

        try:
            model = loadmat(folder / "piq_svm_model.mat")
            ranges = np.asarray(loadmat(folder / "piq_scale.mat")["scale"], dtype=np.float64)
            vectors = cast("sparse.csc_matrix | np.ndarray", model["SVs"])
            dense = np.asarray(vectors if isinstance(vectors, np.ndarray) else vectors.toarray(), dtype=np.float64)
            metric = cls(
                torch.tensor(dense).view(-1, 36),
                torch.tensor(np.asarray(model["sv_coef"], dtype=np.float64)).view(len(dense)),
                torch.tensor(ranges).view(2, 36),
                rho=float(model["rho"].item()),
                gamma=float(model["Parameters"].ravel()[3]),
            )
        except Exception as error:  # A damaged file can raise anything in a parser of this format.
            reason = first_line(error, 120)
            raise CheckpointError(f"{folder} holds no parameters of BRISQUE in the layout of piq ({reason})") from None
        photograph = sample_image("coffee")[None]
        sharp, blurred = (float(metric(x)) for x in (photograph, F.avg_pool2d(photograph, 5, stride=1)))
        metric.lower_better = blurred > sharp
        return metric

    def arguments(self) -> dict[str, object]:
        return {"class": "BRISQUE", "lower_better": self.lower_better}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 36"]:
        """Return the statistics: eighteen at full size, and again at half of it."""
        grey = luminance(x)
        return torch.cat([_statistics(grey), _statistics(downscale_tensor(grey, 2))], dim=1)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        self.require_size(x)
        low, high = self.ranges
        scaled = 2 * (self.features(x) - low) / (high - low) - 1
        squares = (scaled[:, None, :] - self.vectors).square().sum(dim=2)
        return (torch.exp(-self.gamma * squares) @ self.coefficients - self.rho).to(x.dtype)


def _statistics(grey: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 18"]:
    maps = normalize_locally(grey, border="constant").squeeze(1)
    columns = list(symmetric_fit(maps))
    for product in neighbour_products(maps):
        shape, left, right = asymmetric_fit(product)
        mean = (right - left) * gamma_ratio(shape, 2, 1) * gamma_ratio(shape, 1, 3).sqrt()
        columns += [shape, mean, left.square(), right.square()]
    return torch.stack(columns, dim=1)
