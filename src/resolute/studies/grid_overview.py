"""The summary figure: every model a point, robustness against quality; and CLEVER against robustness (figure 5c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resolute.chart import BICUBIC, GREY, Chart, Figure, layout_of, look_of, plain_text, roomy
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid_charts import span
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import Row, attack_title, bicubic_line, headline_level, level_of, summarize, worst_case

SECTION = "Summary"
TEXT = (
    "Every model is a point: to the right it is better without an attack, to the top it is harder to move, or better "
    "when attacked. For each image the attack counts that moves the output most. The dotted line is the bicubic line, "
    "the dashed one goes through blends of a model with bicubic interpolation, where there are any: a defence is worth "
    "its cost above it."
)


def overview_charts(records: Sequence[AttackRecord], prefix: str = "") -> list[Chart]:
    """Return SR-PSNR and attacked PSNR against clean PSNR, under the worst attack on each image, a frame a budget.

    Only where there is ground truth: without it nothing tells a robust model from one that paints nothing.
    """
    rows = [row for row in summarize(worst_case(records)) if row.clean_psnr_y is not None]
    if not rows:
        return []
    first = headline_level(row.level for row in rows)
    levels = [first, *(level for level in sorted({row.level for row in rows}) if level != first)]
    sr = {
        f"{level:g}/255": _points(
            "SR-PSNR, worst attack, dB", [row for row in rows if row.level == level], rows, lambda row: row.sr_psnr,
            bicubic_line(level),
        )
        for level in levels
    }  # fmt: skip
    truth = {
        f"{level:g}/255": _points(
            "attacked PSNR, worst attack, Y, dB", [row for row in rows if row.level == level], rows,
            lambda row: row.attacked_psnr_y, None,
        )
        for level in levels
    }  # fmt: skip
    what = "under the worst attack on each image, one point a model; the figures are in the tables."
    return [
        Chart(
            f"{prefix}overview-{number}",
            name,
            f"{name} {what}",
            next(iter(frames.values())),
            frames,
            "Budget",
            SECTION,
            TEXT,
        )
        for number, (name, frames) in enumerate(
            (("SR-PSNR against clean PSNR", sr), ("Attacked against clean PSNR, both against the truth", truth))
        )
    ]


def clever_charts(indices: Sequence[CleverRecord], records: Sequence[AttackRecord], prefix: str = "") -> list[Chart]:
    """Return the CLEVER index against SR-PSNR, a point an image and model, at the smallest budget of I-FGSM.

    Of the first attack where there is no I-FGSM; no chart where no index was taken.
    """
    models = list(dict.fromkeys(record.model for record in records))
    known = {(index.model, index.image): index.index for index in indices}
    usable = [r for r in records if r.sr_psnr is not None and (r.model, r.image) in known]
    if not usable:
        return []
    attack = "ifgsm" if any(record.attack == "ifgsm" for record in usable) else usable[0].attack
    level = min(level_of(record) for record in usable if record.attack == attack)
    data: list[Figure] = []
    for model in models:
        points = [r for r in usable if (r.model, r.attack, level_of(r)) == (model, attack, level)]
        colour, marker = look_of(model, models)
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain_text(model),
                    "x": [round(r.sr_psnr, 3) for r in points if r.sr_psnr is not None],
                    "y": [round(known[model, r.image], 2) for r in points],
                    "text": [plain_text(r.image) for r in points],
                    "marker": {"size": 8, "color": colour, "symbol": marker},
                    "hovertemplate": "%{text}: %{x:.2f} dB, index %{y:.0f}",
                }
            )
    under = f"{attack_title(attack)}, {level:g}/255"
    what = f"CLEVER against SR-PSNR under {under}, a point an image and model; lower and further right is more robust."
    x: Figure = {"title": {"text": f"SR-PSNR under {plain_text(under)}, dB"}}
    y: Figure = {"title": {"text": "CLEVER index"}, "rangemode": "tozero"}
    figure: Figure = {"data": data, "layout": roomy(layout_of(x, y), len(models))}
    section, text = "How steep the output is", "The CLEVER index (eq. 15) needs no attack: a point an image and model."
    name = f"CLEVER against SR-PSNR under {under}"
    return [Chart(f"{prefix}clever-0", name, what, figure, section=section, text=text)]


def _points(
    y_title: str,
    rows: Sequence[Row],
    everywhere: Sequence[Row],
    read: Callable[[Row], float | None],
    line: float | None,
) -> Figure:
    models = list(dict.fromkeys(row.model for row in everywhere))
    data: list[Figure] = []
    blends = sorted((row.clean_psnr_y or 0.0, read(row) or 0.0) for row in rows if _is_blend(row, rows) and read(row))
    if len(blends) > 2:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "blends with bicubic",
                "x": [round(x, 3) for x, _ in blends],
                "y": [round(y, 3) for _, y in blends],
                "line": {"color": GREY, "width": 1.2, "dash": "dash"},
                "hoverinfo": "skip",
            }
        )
    for row in rows:
        colour, marker = look_of(row.model, models)
        value = read(row)
        if value is not None and row.clean_psnr_y is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain_text(row.model),
                    "x": [round(row.clean_psnr_y, 3)],
                    "y": [round(value, 3)],
                    "marker": {"size": 11, "color": colour, "symbol": marker},
                    "hovertemplate": "clean %{x:.2f} dB, attacked %{y:.2f} dB",
                }
            )
    x: Figure = {"title": {"text": "clean PSNR against the truth, Y, dB"}, "range": span(everywhere, _clean)}
    y: Figure = {"title": {"text": y_title}}
    layout = roomy(layout_of(x, y), len(models))
    if line is not None:
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": line, "y1": line}
            | {"line": {"color": GREY, "width": 1.2, "dash": "dot"}}
        ]
    return {"data": data, "layout": layout}


def _clean(row: Row) -> float | None:
    return row.clean_psnr_y


def _is_blend(row: Row, rows: Sequence[Row]) -> bool:
    """Tell whether a model lies on the way from one that is blended with bicubic interpolation to bicubic itself."""
    blended = {other.model.partition("+mix=")[0] for other in rows if "+mix=" in other.model}
    return bool(blended) and (row.model == BICUBIC or "+mix=" in row.model or row.model in blended)
