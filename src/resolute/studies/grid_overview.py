"""The summary figure: every model a point, robustness against quality; and CLEVER against robustness (figure 5c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resolute.chart import BICUBIC, GREY, Chart, Figure, axis, curve, layout_of, look_of, plain_text, roomy
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid_charts import span
from resolute.studies.steepness import CleverRecord
from resolute.studies.summary import Means, attack_title, bicubic_line, headline_level, level_of, summarize, worst_case

Read = Callable[[Means], float | None]

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
    levels = sorted({row.level for row in rows}, key=lambda level: (level != first, level))
    plots: tuple[tuple[str, str, Read, bool], ...] = (
        ("SR-PSNR against clean PSNR", "SR-PSNR, worst attack, dB", lambda row: row.sr_psnr, True),
        (
            "Attacked against clean PSNR, both against the truth", "attacked PSNR, worst attack, Y, dB",
            lambda row: row.attacked_psnr_y, False,
        ),
    )  # fmt: skip
    charts: list[Chart] = []
    for number, (name, y_title, read, lined) in enumerate(plots):
        what = f"{name} under the worst attack on each image, one point a model; the figures are in the tables."
        frames = {f"{level:g}/255": _points(y_title, level, rows, read, lined) for level in levels}
        figure = frames[f"{first:g}/255"]
        charts.append(Chart(f"{prefix}overview-{number}", name, what, figure, frames, "Budget", SECTION, TEXT))
    return charts


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
        if points:
            x = [round(r.sr_psnr, 3) for r in points if r.sr_psnr is not None]
            y = [round(known[model, r.image], 2) for r in points]
            names = {"text": [plain_text(r.image) for r in points]}
            data.append(_marks(model, models, x, y, "%{text}: %{x:.2f} dB, index %{y:.0f}", 8) | names)
    under = f"{attack_title(attack)}, {level:g}/255"
    what = f"CLEVER against SR-PSNR under {under}, a point an image and model; lower and further right is more robust."
    layout = layout_of(axis(f"SR-PSNR under {plain_text(under)}, dB"), axis("CLEVER index", rangemode="tozero"))
    figure: Figure = {"data": data, "layout": roomy(layout, len(models))}
    section, text = "How steep the output is", "The CLEVER index (eq. 15) needs no attack: a point an image and model."
    name = f"CLEVER against SR-PSNR under {under}"
    return [Chart(f"{prefix}clever-0", name, what, figure, section=section, text=text)]


def _points(y_title: str, level: float, everywhere: Sequence[Means], read: Read, lined: bool) -> Figure:
    models = list(dict.fromkeys(row.model for row in everywhere))
    rows = [row for row in everywhere if row.level == level]
    data: list[Figure] = []
    blends = sorted((row.clean_psnr_y or 0.0, read(row) or 0.0) for row in rows if _is_blend(row, rows) and read(row))
    if len(blends) > 2:
        x, y = ([round(value, 3) for value in values] for values in zip(*blends, strict=True))
        data.append(curve("blends with bicubic", x, y) | {"line": {"color": GREY, "width": 1.2, "dash": "dash"}})
    for row in rows:
        value = read(row)
        if value is not None and row.clean_psnr_y is not None:
            x, y = [round(row.clean_psnr_y, 3)], [round(value, 3)]
            data.append(_marks(row.model, models, x, y, "clean %{x:.2f} dB, attacked %{y:.2f} dB", 11))
    ends = span(everywhere, lambda row: row.clean_psnr_y)
    layout = roomy(layout_of(axis("clean PSNR against the truth, Y, dB", range=ends), axis(y_title)), len(models))
    if lined:
        line = bicubic_line(level)
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": line, "y1": line}
            | {"line": {"color": GREY, "width": 1.2, "dash": "dot"}}
        ]
    return {"data": data, "layout": layout}


def _marks(model: str, models: Sequence[str], x: Sequence[float], y: Sequence[float], hover: str, size: int) -> Figure:
    colour, marker = look_of(model, models)
    return curve(model, x, y, hover, "markers") | {"marker": {"size": size, "color": colour, "symbol": marker}}


def _is_blend(row: Means, rows: Sequence[Means]) -> bool:
    """Tell whether a model lies on the way from one that is blended with bicubic interpolation to bicubic itself."""
    blended = {other.model.partition("+mix=")[0] for other in rows if "+mix=" in other.model}
    return bool(blended) and (row.model == BICUBIC or "+mix=" in row.model or row.model in blended)
