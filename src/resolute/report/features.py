"""The feature layer of the models in one case, as heat maps and histograms (the paper's figure 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from resolute.chart import GREY, PALETTE, Figure, layout_of
from resolute.report.encode import Album, heat_map, middle
from resolute.report.material import Passage
from resolute.report.text import MINUS

BINS = 90


@dataclasses.dataclass(frozen=True)
class Features:
    """The feature layer of one model in one case.

    Attributes:
        clean, attacked, change: numbers of the heat maps in the album.
        moved: size of the change relative to the spread of the clean features, in per cent.
        histogram: what plotly draws.
    """

    model: str
    clean: int
    attacked: int
    change: int
    moved: str
    histogram: Figure


def paint(passages: Sequence[Passage], side: int, album: Album) -> tuple[list[Features], list[str]]:
    """Paint the features of all models on one scale, so that models can be compared by eye.

    Args:
        passages: one a model.
        side: of the middle part that the heat maps show, in features.
        album: where the heat maps go.

    Returns:
        The features of every model, and the ends of the scales: lowest and highest mean, largest change.
    """
    pairs = [(passage.clean_features[0], passage.features[0]) for passage in passages]
    means = [tuple(middle(phi.mean(0).numpy(), side) for phi in pair) for pair in pairs]
    changes = [np.abs(attacked - clean) for clean, attacked in means]
    low, high = np.percentile(np.concatenate([mean.ravel() for pair in means for mean in pair]), (1, 99))
    most = np.percentile(np.concatenate([change.ravel() for change in changes]), 99)
    left, right = np.percentile(np.concatenate([phi.numpy().ravel() for pair in pairs for phi in pair]), (0.5, 99.5))
    found = [
        Features(
            passage.record.model,
            album.add(heat_map(mean[0], float(low), float(high)), lossless=True),
            album.add(heat_map(mean[1], float(low), float(high)), lossless=True),
            album.add(heat_map(change, 0.0, float(most)), lossless=True),
            f"{100 * float((attacked - clean).norm() / (clean - clean.mean()).norm().clamp_min(1e-12)):.0f}\u00a0%",
            histogram(clean.numpy().ravel(), attacked.numpy().ravel(), float(left), float(right)),
        )
        for passage, (clean, attacked), mean, change in zip(passages, pairs, means, changes, strict=True)
    ]
    return found, [f"{float(end):.2g}".replace("-", MINUS) for end in (low, high, most)]


def histogram(clean: Float[np.ndarray, " n"], attacked: Float[np.ndarray, " n"], low: float, high: float) -> Figure:
    """Draw how feature values are spread for the clean and the attacked input (the histograms of figure 4).

    Args:
        clean: feature values.
        attacked: feature values.
        low: left end of the axis; values beyond the ends are not drawn, but belong to the whole of 100 %.
        high: right end of the axis.
    """
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    middles = [float(f"{middle:.5g}") for middle in (edges[:-1] + edges[1:]) / 2]
    traces: list[Figure] = []
    for name, values, colour in (("clean input", clean, GREY), ("attacked input", attacked, PALETTE[0])):
        shares = np.histogram(values, edges)[0] / max(1, values.size) * 100
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": middles,
                "y": [float(f"{share:.4g}") if share > 0 else None for share in shares],
                "line": {"shape": "hvh", "width": 1.6, "color": colour},
                "hovertemplate": "%{x}: %{y:.3f} %",
            }
        )
    # Entropy regularisation gathers most values in one bin, next to which a linear axis would show nothing else.
    axis: Figure = {"title": {"text": "share of values, %"}, "type": "log", "range": [-2.5, 2], "dtick": 1}
    return {"data": traces, "layout": layout_of({"title": {"text": "feature value"}}, axis) | {"height": 260}}
