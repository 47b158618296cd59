"""The charts of the study of DMS-IQA: agreement, certified delta over the radius, and the paper's figure 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resolute.chart import MARKERS, PALETTE, Chart, Figure, axis, curve, error_bars, layout_of, plain_text
from resolute.studies.certified_iqa_summary import Shift, Summary

Names = Sequence[tuple[str, str]]


def charts_of(results: Summary) -> list[Chart]:
    """Return the charts of the study."""
    names = [(standing.metric, standing.contender) for standing in results.standings]
    found = [_agreement(results, names)]
    if any(standing.certified for standing in results.standings):
        found.append(_delta(results, names))
    found += [
        _shifts(results, mode, norm, names)
        for mode in dict.fromkeys(shift.mode for shift in results.shifts)
        for norm in dict.fromkeys(shift.norm for shift in results.shifts)
    ]
    return found


def _agreement(results: Summary, names: Names) -> Chart:
    data: list[Figure] = [
        {
            "type": "bar",
            "x": [plain_text(standing.contender)],
            "y": [round(standing.agreement.srocc.mean, 4)],
            "error_y": error_bars([standing.agreement.srocc]),
            "name": plain_text(standing.contender),
            "marker": {"color": _colour((standing.metric, standing.contender), names)},
            "hovertemplate": "%{y:.3f}",
            "showlegend": False,
        }
        for standing in results.standings
        if standing.agreement is not None
    ]
    figure: Figure = {"data": data, "layout": layout_of({"automargin": True}, axis("SROCC"))}
    return Chart("agreement", "Agreement with people", "Bars of SROCC with 95 % bootstrap intervals.", figure)


def _delta(results: Summary, names: Names) -> Chart:
    data: list[Figure] = []
    for name in names:
        rows = [row for row in results.scores if (row.metric_alone, row.defence) == name and row.span]
        curves = [
            (row.score, row.span or 1, row.certificate.curve(row.radii()))
            for row in rows
            if row.certificate is not None and row.score is not None
        ]
        radii: list[float] = []
        means: list[float] = []
        # As far as every certificate says anything.
        for bounds in zip(*(found for *_, found in curves), strict=True):
            if any(one.vacuous for one in bounds):
                break
            shares = [
                max(one.upper - score, score - one.lower) / span
                for one, (score, span, _) in zip(bounds, curves, strict=True)
            ]
            radii.append(round(bounds[0].epsilon, 5))
            means.append(round(100 * float(np.mean(shares)), 4))
        if curves:
            line = {"line": {"color": _colour(name, names), "width": 2}}
            data.append(curve(name[1], radii, means, "%{x}: %{y:.2f} %") | line)
    figure: Figure = {"data": data, "layout": layout_of(axis("l2 radius"), axis("certified δ, % of range"))}
    words = "Mean certified delta over the l2 radius, as far as certificates say anything, one curve a defence."
    return Chart("delta", "Certified δ over the radius", words, figure)


def _shifts(results: Summary, mode: str, norm: str, names: Names) -> Chart:
    data: list[Figure] = []
    for index, name in enumerate(names):
        ours = [s for s in results.shifts if (s.metric, s.contender) == name and (s.mode, s.norm) == (mode, norm)]
        ours = sorted((s for s in ours if s.mean is not None), key=lambda s: s.l2)
        if not ours:
            continue
        colour = _colour(name, names)
        x, y = [round(s.l2, 4) for s in ours], [round(100 * (s.mean or 0), 4) for s in ours]
        look = {"line": {"color": colour, "width": 2}}
        look |= {"marker": {"size": 8, "symbol": MARKERS[index % len(MARKERS)]}}
        data.append(curve(name[1], x, y, "l2 %{x}: %{y:+.2f} %, empirical", "lines+markers") | look)
        data += _bounds(name[1], colour, [s for s in ours if s.certified is not None])
    layout = layout_of(axis("mean l2 norm of the perturbation", type="log"), axis("mean score shift, % of range"))
    title = {"undefended": "Attacks found on the metric alone", "adaptive": "Attacks found through the defence"}[mode]
    words = (
        "Empirical mean score shift over the l2 norm, one curve a defence; dotted, certified bounds where they hold."
    )
    return Chart(f"shift-{mode}-{norm}", f"{title}, {norm}", words, {"data": data, "layout": layout})


def _bounds(name: str, colour: str, held: Sequence[Shift]) -> list[Figure]:
    look: Figure = {"line": {"color": colour, "width": 1.5, "dash": "dot"}, "marker": {"size": 4}}
    title, hover, x = f"{name}, certified bound", "l2 %{x}: %{y:+.2f} %, certified", [round(s.l2, 4) for s in held]
    return [
        curve(title, x, [round(sign * 100 * (s.certified or 0), 4) for s in held], hover, "lines+markers")
        | look
        | {"showlegend": sign > 0}
        for sign in (1, -1)
        if held
    ]


def _colour(name: tuple[str, str], names: Names) -> str:
    return PALETTE[list(names).index(name) % len(PALETTE)]
