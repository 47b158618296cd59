"""The charts of the study of DMS-IQA: agreement, certified delta over the radius, and the paper's figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resolute.chart import MARKERS, PALETTE, Chart, Figure, layout_of, plain_text
from resolute.studies.certified_iqa_summary import Shift, Summary


def charts_of(results: Summary) -> list[Chart]:
    """Return the charts of the study."""
    names = [(standing.metric, standing.contender) for standing in results.standings]
    found = [_agreement(results, "agreement", names)]
    if any(standing.certified for standing in results.standings):
        found.append(_delta(results, "delta", names))
    found += [
        _shifts(results, f"shift-{mode}-{norm}", mode, norm, names)
        for mode in dict.fromkeys(shift.mode for shift in results.shifts)
        for norm in dict.fromkeys(shift.norm for shift in results.shifts)
    ]
    return found


def _agreement(results: Summary, id: str, names: Sequence[tuple[str, str]]) -> Chart:
    found = [(s, s.agreement.srocc) for s in results.standings if s.agreement is not None]
    data: list[Figure] = [
        {
            "type": "bar",
            "x": [plain_text(standing.contender)],
            "y": [round(value.mean, 4)],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [round(max(value.high - value.mean, 0), 4)],
                "arrayminus": [round(max(value.mean - value.low, 0), 4)],
            },
            "name": plain_text(standing.contender),
            "marker": {"color": _colour((standing.metric, standing.contender), names)},
            "hovertemplate": "%{y:.3f}",
            "showlegend": False,
        }
        for standing, value in found
    ]
    layout = layout_of({"automargin": True}, {"title": {"text": "SROCC"}})
    return Chart(
        id, "Agreement with people", "Bars of SROCC with 95 % bootstrap intervals.", {"data": data, "layout": layout}
    )


def _delta(results: Summary, id: str, names: Sequence[tuple[str, str]]) -> Chart:
    data: list[Figure] = []
    for name in names:
        rows = [row for row in results.scores if (row.metric_alone, row.defence) == name and row.span]
        curves = [(row, row.certificate.curve(row.radii())) for row in rows if row.certificate is not None]
        curves = [(row, curve) for row, curve in curves if row.score is not None]
        if not curves:
            continue
        radii: list[float] = []
        means: list[float] = []
        # As far as every certificate says anything.
        for bounds in zip(*(curve for _, curve in curves), strict=True):
            if any(one.vacuous for one in bounds):
                break
            radii.append(bounds[0].epsilon)
            shares = [
                max(one.upper - (row.score or 0), (row.score or 0) - one.lower) / (row.span or 1)
                for one, (row, _) in zip(bounds, curves, strict=True)
            ]
            means.append(float(np.mean(shares)))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain_text(name[1]),
                "x": [round(radius, 5) for radius in radii],
                "y": [round(100 * mean, 4) for mean in means],
                "line": {"color": _colour(name, names), "width": 2},
                "hovertemplate": "%{x}: %{y:.2f} %",
            }
        )
    layout = layout_of({"title": {"text": "l2 radius"}}, {"title": {"text": "certified δ, % of range"}})
    return Chart(
        id, "Certified δ over the radius",
        "Mean certified delta over the l2 radius, as far as certificates say anything, one curve a defence.",
        {"data": data, "layout": layout},
    )  # fmt: skip


def _shifts(results: Summary, id: str, mode: str, norm: str, names: Sequence[tuple[str, str]]) -> Chart:
    data: list[Figure] = []
    for index, name in enumerate(names):
        ours = [s for s in results.shifts if (s.metric, s.contender) == name and (s.mode, s.norm) == (mode, norm)]
        ours = sorted((s for s in ours if s.mean is not None), key=lambda s: s.l2)
        if not ours:
            continue
        colour = _colour(name, names)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain_text(name[1]),
                "x": [round(s.l2, 4) for s in ours],
                "y": [round(100 * (s.mean or 0), 4) for s in ours],
                "line": {"color": colour, "width": 2},
                "marker": {"size": 8, "symbol": MARKERS[index % len(MARKERS)]},
                "hovertemplate": "l2 %{x}: %{y:+.2f} %, empirical",
            }
        )
        data += _band(name[1], colour, ours)
    layout = layout_of(
        {"title": {"text": "mean l2 norm of the perturbation"}, "type": "log"},
        {"title": {"text": "mean score shift, % of range"}},
    )
    title = {"undefended": "Attacks found on the metric alone", "adaptive": "Attacks found through the defence"}[mode]
    return Chart(
        id, f"{title}, {norm}",
        "Empirical mean score shift over the l2 norm, one curve a defence; dotted, certified bounds where they hold.",
        {"data": data, "layout": layout},
    )  # fmt: skip


def _band(name: str, colour: str, ours: Sequence[Shift]) -> list[Figure]:
    held = [s for s in ours if s.certified is not None]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plain_text(f"{name}, certified bound"),
            "x": [round(s.l2, 4) for s in held],
            "y": [round(sign * 100 * (s.certified or 0), 4) for s in held],
            "line": {"color": colour, "width": 1.5, "dash": "dot"},
            "marker": {"size": 4},
            "showlegend": sign > 0,
            "hovertemplate": "l2 %{x}: %{y:+.2f} %, certified",
        }
        for sign in (1, -1)
        if held
    ]


def _colour(name: tuple[str, str], names: Sequence[tuple[str, str]]) -> str:
    return PALETTE[list(names).index(name) % len(PALETTE)]
