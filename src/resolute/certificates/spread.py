"""How far a smoothed output can move in l2 norm: centre smoothing, and the covariance of the outputs under noise.

Write ``f(z)`` for the output, a vector of D values in [0, 1], ``P`` for the law of ``x + N(0, sigma^2 I)``, ``P_u`` for
that of ``x + u + N(0, sigma^2 I)`` with ``||u|| <= epsilon``, and ``t = epsilon/sigma``. docs/certified-restoration.md
has the proofs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import linalg, sparse, special
from torch import Tensor

from resolute.certificates.order_statistics import fixed_ranks, level

_COLUMNS = 8192
# Of more outputs the eigenvalue is found by so many steps of Lanczos' method, which miss no more than this share.
_DENSE, _STEPS, _SHORT = 2048, 100, 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """What the outputs of noisy copies say of the norm of a change; from it follow bounds at any radius.

    Lengths are l2 norms over all D values of an output, in [0, 1].

    Attributes:
        sigma: standard deviation of the noise.
        alpha: chance that a bound fails; each of the bounds has it by itself.
        values: D.
        distances: of outputs from the centre, in ascending order.
        reach: no output is farther from the centre.
        near, gain: of a model that is confined, the outputs under noise no longer than ``sigma (sqrt(d) + 6)`` before
            it is rounded, d being the values of the input, are no farther than ``near``, and ``gain`` times as far as
            the input is moved; infinite and 0 for other models.
        cut: length to which differences from the centre are cut for the covariance, fixed before they were drawn.
        beyond: distances longer than ``cut``, as the sum of what they are longer.
        counted: outputs behind the covariance; 0 for none.
        largest: largest eigenvalue of their mean of ``(h - c)(h - c)^T``, c being the centre and h outputs so cut.
    """

    sigma: float
    alpha: float
    values: int
    distances: tuple[float, ...]
    reach: float
    cut: float
    beyond: float
    counted: int
    largest: float
    near: float = math.inf
    gain: float = 0.0

    def centre(self, epsilon: float) -> float:
        """Return how far the centre of the perturbed image's outputs is from the centre here at most.

        Centre smoothing (Kumar and Goldstein, NeurIPS 2021, Theorem 1): a ball around the centre that holds
        ``Phi(t)`` of the outputs holds half of those of the perturbed image, hence meets their smallest such ball,
        which is no larger. Infinite where the samples are too few.
        """
        n = len(self.distances)
        # One side errs, with all of alpha.
        rank = fixed_ranks(n, level(epsilon, self.sigma), min(2 * self.alpha, 0.999)).high
        return math.inf if rank is None else 2 * self.distances[rank - 1]

    def mean(self, epsilon: float) -> float:
        """Return how far the mean output moves at most, ``||E_{P_u} f - E_P f||``.

        With h the output cut to ``cut`` around the centre, ``f - h`` shorter than ``reach - cut`` and present with a
        chance of at most p, and the largest eigenvalue lambda of the covariance of h, the sum of
        ``sqrt(exp(t^2) - 1) sqrt(lambda)`` (Cauchy-Schwarz with the chi-square divergence of ``P_u`` from ``P``) and
        ``(reach - cut) (Phi(Phi^-1(p) + t) + p)`` (Neyman-Pearson). For a linear f it is ``epsilon ||f||`` for small t
        and many samples, the best that can be.
        """
        t = epsilon / self.sigma
        if self.counted == 0 or t > 6:
            return math.inf
        moved = float(special.ndtr(special.ndtri(self._beyond) + t)) + self._beyond
        return math.sqrt(math.expm1(t * t) * self.eigenvalue) + self._excess(epsilon) * moved + 2 * self._far

    @property
    def eigenvalue(self) -> float:
        """Upper bound, which fails with a third of alpha, on the largest eigenvalue of the covariance of h.

        That is at most the largest one of ``E (h - c)(h - c)^T``. Along its eigenvector v the mean of
        ``(v (h - c))^2`` is no more than ``largest``, and its terms are in [0, cut^2], so Chernoff's bound for a mean
        holds along v, and no dimension enters.
        """
        most = self.cut**2
        rate = math.log(3 / self.alpha) / self.counted
        return most * _chernoff(min(1.0, self.largest / most), rate) if most else 0.0

    @property
    def sampling(self) -> float:
        """Bound, which fails with a third of alpha, on how far the mean of the samples is from the true mean output.

        McDiarmid's inequality for ``||mean of h - E h||``, whose expectation is at most ``cut/sqrt(n)``.
        """
        n = len(self.distances)
        drawn = self.cut * (1 + math.sqrt(2 * math.log(3 / self.alpha))) / math.sqrt(n)
        return drawn + self.beyond / n + self._excess(0.0) * self._beyond + self._far

    def _excess(self, epsilon: float) -> float:
        return max(0.0, min(self.reach, self.near + self.gain * epsilon) - self.cut)

    @property
    def _far(self) -> float:
        """What noise longer than ``sigma (sqrt(d) + 6)`` adds: the integral of exp(-s^2/2) from 6 on."""
        return self.gain * self.sigma * 2.6e-9

    @property
    def _beyond(self) -> float:
        """Upper bound, which fails with a third of alpha, on the chance of a distance beyond ``cut``."""
        n, above = len(self.distances), sum(distance > self.cut for distance in self.distances)
        return 1.0 if above == n else float(special.betaincinv(above + 1, n - above, 1 - self.alpha / 3))


@final
class Around:
    """What a ``Spread`` needs, gathered from blocks of outputs as they come.

    The first blocks give the centre, the next one the length to cut to, and all others, which are independent of both,
    the distances.

    Attributes:
        mean: of the outputs behind the distances.
        first: how many outputs came before them.

    Args:
        early: outputs that the centre is the mean of, up to a block.
    """

    def __init__(self, early: int) -> None:
        self.early = early
        self.first = 0
        self.total = self.mean = torch.empty(0)
        self.centre: Tensor | None = None
        self.cut = math.nan
        self.distances: list[float] = []

    def add(self, rows: Float[Tensor, "b d"]) -> None:
        """Take a block."""
        if self.centre is None:
            self.total = rows.double().sum(0) + (self.total if self.first else 0)
            self.first += len(rows)
            if self.first >= self.early:
                self.centre = (self.total / self.first).float()
            return
        found = (rows - self.centre).norm(dim=1).double()
        if math.isnan(self.cut):
            # Where distances concentrate, as those of many values do, none is beyond.
            self.cut = float(found.mean() + 6 * found.std(correction=0))
            self.first += len(rows)
            return
        self.mean = rows.double().sum(0) + (self.mean if self.distances else 0)
        self.distances += found.tolist()

    def spread(self, rows: Float[Tensor, "n d"], sigma: float, alpha: float) -> Spread:
        """Return what was found, and let ``mean`` be a mean; ``rows`` are the outputs kept, from the first on."""
        assert self.centre is not None
        self.mean = self.mean / len(self.distances)
        kept = rows[self.first :]
        factors = (self.cut / torch.tensor(self.distances[: len(kept)]).clamp_min(1e-30)).clamp_max(1)
        return Spread(
            sigma=sigma, alpha=alpha, values=rows.shape[1], distances=tuple(sorted(self.distances)),
            reach=float(torch.maximum(self.centre, 1 - self.centre).double().norm()), cut=self.cut,
            beyond=sum(max(0.0, distance - self.cut) for distance in self.distances), counted=len(kept),
            largest=largest_eigenvalue(kept, self.centre, factors.float()),
        )  # fmt: skip


def largest_eigenvalue(rows: Float[Tensor, "n d"], centre: Float[Tensor, " d"], factors: Float[Tensor, " n"]) -> float:
    """Return the largest eigenvalue of the mean of ``(h - c)(h - c)^T``, or a little more.

    Of many rows it is found by Lanczos' method, which after k steps from a random start is short by more than a share e
    with a chance of at most ``1.648 sqrt(n) exp(-sqrt(e) (2k - 1))`` (Kuczynski and Wozniakowski, SIAM J. Matrix Anal.
    Appl. 1992, Theorem 4.2): here below 1e-8 for any n up to a million.

    Args:
        rows: outputs.
        centre: c.
        factors: by which ``f - c`` is multiplied to give ``h - c``.

    Example:
        >>> largest_eigenvalue(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.zeros(2), torch.ones(2))
        0.50005
    """
    n = len(rows)
    if n == 0:
        return 0.0
    if n <= _DENSE:
        gram = torch.zeros(n, n, dtype=torch.float64)
        for first in range(0, rows.shape[1], _COLUMNS):
            part = (rows[:, first : first + _COLUMNS] - centre[first : first + _COLUMNS]) * factors[:, None]
            gram += part @ part.T
        last, more = linalg.eigh(gram.numpy(), eigvals_only=True, subset_by_index=(n - 1, n - 1))[0], 1e-4
    else:

        def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            weights = factors * torch.from_numpy(vector).float().flatten()
            direction = rows.T @ weights - weights.sum() * centre
            return (factors * (rows @ direction - centre @ direction)).double().numpy()

        start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        operator = sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
        last = sparse.linalg.eigsh(operator, k=1, ncv=_STEPS, v0=start, tol=1e-4, return_eigenvectors=False)[0]
        more = _SHORT / (1 - _SHORT)
    # No rounding of the products in float32 reaches a part in ten thousand. The last digits, which depend on how many
    # threads the solver has, are left out.
    return float(f"{max(0.0, float(last)) / n:.6e}") * (1 + more)


def _chernoff(mean: float, rate: float) -> float:
    """Return the largest q with ``KL(mean || q) <= rate``, for means of variables in [0, 1].

    Example:
        >>> round(_chernoff(0.0, 0.1), 4)
        0.0952
    """
    inside, outside = mean, 1.0
    for _ in range(60):
        middle = (inside + outside) / 2
        # rel_entr(a, b) is a log(a/b), 0 at a = 0.
        divergence = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle)
        inside, outside = (middle, outside) if divergence <= rate else (inside, middle)
    return outside
