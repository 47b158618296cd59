"""NIQE (Mittal et al., IEEE SPL 2013): the distance of an image's statistics from those of pristine photographs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resolute.errors import CheckpointError, ImageError, first_line
from resolute.models.base import Scorer
from resolute.models.naturalness import asymmetric_fit, gamma_ratio, luminance, neighbour_products, normalize_locally
from resolute.resize import downscale_tensor

BLOCK = 96


class NIQE(Scorer):
    """A classical metric without network and ratings: 36 statistics of every block of 96 x 96; lower is better.

    The blocks of the image give a Gaussian, pristine photographs gave another; the score is a Mahalanobis distance
    between the two means (eq. 10), so it is never negative. What sticks out beyond whole blocks is not looked at.

    Args:
        mean: of the statistics of pristine blocks.
        covariance: of the same.

    Raises:
        ImageError: images below 192 pixels a side, or with fewer than two blocks that are not flat, when called.
    """

    lower_better = True
    low = 0.0
    usual = (0.0, 100.0)
    smallest = 2 * BLOCK

    mean: Tensor
    covariance: Tensor

    def __init__(self, mean: Float[Tensor, " 36"], covariance: Float[Tensor, "36 36"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.double())
        self.register_buffer("covariance", covariance.double())

    @classmethod
    def read(cls, path: Path) -> NIQE:
        """Read an ``.npz`` file with ``mu_pris_param`` and ``cov_pris_param``.

        Raises:
            CheckpointError: the file is missing, damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                mean, covariance = (torch.tensor(arrays[name]) for name in ("mu_pris_param", "cov_pris_param"))
            return cls(mean.view(36), covariance.view(36, 36))
        except (OSError, ValueError, LookupError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
            reason = first_line(error, 120)
            raise CheckpointError(f"{path} holds no parameters of NIQE ({reason})") from None

    def arguments(self) -> dict[str, object]:
        return {"class": "NIQE"}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b n 36"], Bool[Tensor, "b n"]]:
        """Return the statistics of every block at two scales, and which blocks have any."""
        rows, columns = (side // BLOCK for side in x.shape[-2:])
        grey = luminance(x)[:, :, : rows * BLOCK, : columns * BLOCK]
        fine, coarse = _blocks(grey, rows, columns), _blocks(downscale_tensor(grey, 2), rows, columns)
        valid = _varies(fine) & _varies(coarse)
        return torch.cat([_statistics(fine), _statistics(coarse)], dim=2), valid

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        self.require_size(x)
        features, valid = self.features(x)
        counts = valid.sum(dim=1)
        if (counts < 2).any():
            raise ImageError("NIQE needs two blocks of 96 x 96 pixels that are not flat, which this image lacks")
        # Zeros instead of the statistics of flat blocks, whose gradients would be anything.
        kept = torch.where(valid[:, :, None], features, 0.0)
        means = kept.sum(dim=1) / counts[:, None]
        spread = torch.where(valid[:, :, None], features - means[:, None], 0.0)
        covariances = spread.transpose(1, 2) @ spread / (counts - 1)[:, None, None]
        shift = (self.mean - means)[:, :, None]
        pooled = (self.covariance + covariances) / 2
        squares = (shift.transpose(1, 2) @ torch.linalg.solve(pooled, shift)).flatten()
        return squares.clamp_min(1e-12).sqrt().to(x.dtype)


def _blocks(grey: Float[Tensor, "b 1 h w"], rows: int, columns: int) -> Float[Tensor, "b n i j"]:
    maps = normalize_locally(grey, border="replicate")
    batch, _, height, width = maps.shape
    grid = maps.view(batch, rows, height // rows, columns, width // columns)
    return grid.transpose(2, 3).flatten(1, 2)


def _varies(blocks: Float[Tensor, "b n i j"]) -> Bool[Tensor, "b n"]:
    return blocks.abs().amax(dim=(2, 3)) > 1e-6


def _statistics(blocks: Float[Tensor, "b n i j"]) -> Float[Tensor, "b n 18"]:
    shape, left, right = _deviations(blocks)
    columns = [shape, (left + right) / 2]
    for product in neighbour_products(blocks):
        shape, left, right = _deviations(product)
        columns += [shape, (right - left) * gamma_ratio(shape, 2, 1), left, right]
    return torch.stack(columns, dim=2)


def _deviations(
    maps: Float[Tensor, "b n i j"],
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Return the shape and the two scales, which are the deviations times a function of the shape."""
    shape, left, right = asymmetric_fit(maps)
    scale = gamma_ratio(shape, 1, 3).sqrt()
    return shape, left * scale, right * scale
