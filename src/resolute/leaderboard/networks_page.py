"""The page of the published networks: who keeps how much, by family, size and year."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from resolute.chart import GREY, Chart, Figure, axis, curve, layout_of, look_of, plain_text, roomy
from resolute.figures import DASH, Interval
from resolute.files import write_text
from resolute.leaderboard.empirical import Figure as Mean
from resolute.leaderboard.ranking import FLOOR, Placed, is_bicubic, sentences
from resolute.report.assets import embed, plotting_library, render
from resolute.report.page import chart_sections
from resolute.studies.peers import MARGIN, MIX
from resolute.studies.summary import HEADLINE
from resolute.table import Column, Row, Table, TableCell, row

# Ends of the classes of size, in thousands of weights.
_SIZES = (100, 200, 300, 500, 1000)
_TEXT = (
    "A network to the right is better without an attack, one to the top better under the worst attack on each image. "
    "None is better in both than those on the line. The dashed lines go from bicubic interpolation to a network "
    "through mixtures of the two: what lies below them is reached by mixing."
)


def write_networks_page(rows: Sequence[Placed], out: Path, waiting: int = 0) -> None:
    """Write the page of the networks.

    Args:
        rows: of ``ranking``.
        out: the page.
        waiting: networks that are not measured to the end yet.

    Raises:
        OutputError: it cannot be written.
    """
    charts = [scatter(rows)] if any(one.rank is not None for one in rows) else []
    data = {
        "charts": {chart.id: chart.figure for chart in charts},
        "frames": {chart.id: chart.frames for chart in charts},
        "cases": [],
        "pictures": [],
    }
    values = {
        "title": "Super-resolution networks under attack",
        "kicker": "leaderboard",
        "questions": [],
        "verdicts": [{"alarm": "", "sentences": sentences(rows, waiting)}],
        "notes": [],
        "cases": [],
        "pairs": False,
        "gallery": False,
        "cropped": False,
        "left_out": "",
        "missing": [],
        "tables": [table_of(rows)],
        "checks": [],
        "sections": chart_sections(charts),
        "sources": [],
        "plotly": plotting_library() if charts else "",
        "data": embed(data),
        "first": rows[0].entry,
        "margin": MARGIN,
        "made": sorted({one.entry.made.date[:10] for one in rows if one.entry.made is not None}),
    }
    write_text(out, render("networks.html.j2", values, ("sorting.js", "viewer.js")))


def table_of(rows: Sequence[Placed]) -> Table:
    """Return the table of the networks, sorted by what they keep against the truth at 4/255."""
    levels = sorted({one.level for item in rows for one in item.entry.empirical}, key=lambda x: (x != HEADLINE, x))
    # What a telephone shows without scrolling comes first.
    worst = [
        Column(
            f"attacked {level:g}/255", "dB", "PSNR against the truth, on Y, under the worst attack on each image",
            better="higher", key=level == HEADLINE,
        )
        for level in levels
    ]  # fmt: skip
    kept = [
        Column(
            f"SR-PSNR {level:g}/255", "dB", "attacked output against the model's own clean one, worst attack",
            better="higher",
        )
        for level in levels
    ]  # fmt: skip
    clean = Column("clean PSNR", "dB", "against the truth, on Y, without an attack", better="higher")
    columns = [
        Column("name"), Column("rank"), worst[0], clean, Column("family"), Column("year", align="right"),
        Column("weights", meaning="how many numbers"), Column("size", meaning="classes of the number of weights"),
        *worst[1:], *kept, Column("flags"), Column("licence"), Column("sha256", code=True),
    ]  # fmt: skip
    return Table(
        "Networks", columns, [*(_row(one, levels) for one in rows), *_floor(rows, levels)],
        sort=f"attacked {HEADLINE:g}/255", choices=dict.fromkeys(("family", "year", "size"), ""),
        caption="Means over the images with 95 % bootstrap intervals. What has no rank stands here to compare with.",
    )  # fmt: skip


def _row(one: Placed, levels: Sequence[float]) -> Row:
    facts = one.network
    worst = [one.worst(level) for level in levels]
    flags = one.entry.flags
    clean = next((found.clean_psnr for found in worst if found is not None), None)
    attacked = [_interval(found.attacked_psnr) if found else None for found in worst]
    return row(
        TableCell(one.name, note=one.why, link=facts.source if facts else ""),
        one.rank,
        attacked[0],
        _interval(clean),
        facts.family if facts else DASH,
        str(facts.year) if facts else DASH,
        facts.parameters if facts else None,
        size_of(facts.parameters) if facts else DASH,
        *attacked[1:],
        *(_interval(found.sr_psnr) if found else None for found in worst),
        TableCell(len(flags), note=", ".join(flag.name for flag in flags), tone="bad" if flags else ""),
        facts.licence if facts else DASH,
        one.entry.model.sha256[:8] or DASH,
    )


def _floor(rows: Sequence[Placed], levels: Sequence[float]) -> list[Row]:
    """Return the median network under changes that are only random: what an attack has to beat to be one."""
    ranked = [one for one in rows if one.rank is not None]
    found = {level: [seen for one in ranked if (seen := one.under(FLOOR, level)) is not None] for level in levels}
    if not ranked or not any(found.values()):
        return []
    attacked = [_median([one.attacked_psnr for one in found[level]]) for level in levels]
    kept = [_median([one.sr_psnr for one in found[level]]) for level in levels]
    clean = statistics.median(one.clean for one in ranked)
    name = TableCell(f"median under {FLOOR}", note="changes at random, no attack")
    first, *others = attacked
    return [row(name, None, first, clean, DASH, DASH, None, DASH, *others, *kept, None, DASH, DASH)]


def size_of(parameters: int) -> str:
    """Return the class of a number of weights.

    Example:
        >>> size_of(60_000), size_of(276_192), size_of(16_000_000)
        ('below 100 k', '200 to 300 k', '1000 k and more')
    """
    thousands = parameters / 1000
    above = [end for end in _SIZES if thousands >= end]
    below = [end for end in _SIZES if thousands < end]
    if not above:
        return f"below {below[0]} k"
    return f"{above[-1]} to {below[0]} k" if below else f"{above[-1]} k and more"


def scatter(rows: Sequence[Placed]) -> Chart:
    """Draw attacked against clean PSNR, a frame a budget, with the Pareto front and the mixtures with bicubic."""
    levels = sorted({one.level for item in rows for one in item.entry.empirical}, key=lambda x: (x != HEADLINE, x))
    frames = {f"{level:g}/255": _points(rows, level) for level in levels}
    title = "Attacked against clean PSNR, both against the truth"
    words = f"{title}, one point a network; the figures are in the table."
    first = next(iter(frames.values()))
    return Chart("networks", title, words, first, frames, "Budget", "Quality without and under attack", _TEXT)


def _points(rows: Sequence[Placed], level: float) -> Figure:
    known = [(one, kept) for one in rows if (kept := one.kept(level)) is not None]
    networks = [(one, kept) for one, kept in known if one.rank is not None and one.network is not None]
    families = sorted({one.network.family for one, _ in networks if one.network})
    traces: list[Figure] = []
    for family in families:
        own = [(one, kept) for one, kept in networks if one.network and one.network.family == family]
        colour, marker = look_of(family, families)
        x, y = [round(one.clean, 3) for one, _ in own], [round(kept, 3) for _, kept in own]
        names = [plain_text(one.network.title) for one, _ in own if one.network]
        hover = "%{text}: clean %{x:.2f} dB, attacked %{y:.2f} dB"
        look = {"text": names, "marker": {"color": colour, "symbol": marker, "size": 9}}
        traces.append(curve(family, x, y, hover, "markers") | look)
    front = pareto([(one.clean, kept) for one, kept in networks])
    line = {"line": {"color": GREY, "width": 1.5}, "mode": "lines"}
    traces.append(curve("best in both", [x for x, _ in front], [y for _, y in front]) | line)
    traces += _mixtures(known)
    layout = layout_of(axis("clean PSNR, dB"), axis(f"PSNR under the worst attack at {level:g}/255, dB"))
    return {"data": traces, "layout": roomy(layout, len(families) + 3)}


def _mixtures(known: Sequence[tuple[Placed, float]]) -> list[Figure]:
    """Draw bicubic interpolation, and the lines from it through mixtures to the networks that were mixed."""
    bicubic = [(one.clean, kept) for one, kept in known if is_bicubic(one.entry)]
    point = {"marker": {"color": GREY, "symbol": "circle-open", "size": 11}}
    x, y = [round(clean, 3) for clean, _ in bicubic], [round(kept, 3) for _, kept in bicubic]
    traces = [curve("bicubic", x, y, "bicubic: clean %{x:.2f} dB, attacked %{y:.2f} dB", "markers") | point]
    called = {one.entry.model.name: one.name for one, _ in known}
    for base in sorted({name.partition(MIX)[0] for name in called if MIX in name}):
        own = [(one.clean, kept) for one, kept in known if one.entry.model.name.partition(MIX)[0] == base]
        points = sorted([*own, *bicubic])
        line = {"line": {"color": GREY, "width": 1.5, "dash": "dash"}}
        x, y = [round(clean, 3) for clean, _ in points], [round(kept, 3) for _, kept in points]
        traces.append(curve(f"{called.get(base, base)} mixed with bicubic", x, y) | line)
    return traces


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one exceeds in both, from left to right.

    Example:
        >>> pareto([(1, 5), (2, 3), (1.5, 2), (3, 1)])
        [(1, 5), (2, 3), (3, 1)]
    """
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found[::-1]


def _median(figures: Sequence[Mean | None]) -> float | None:
    known = [one.mean for one in figures if one is not None]
    return statistics.median(known) if known else None


def _interval(figure: Mean | None) -> Interval | None:
    return None if figure is None else Interval(figure.mean, figure.low, figure.high, figure.n)
