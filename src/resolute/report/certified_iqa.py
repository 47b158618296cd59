"""The page, the Markdown and the tables of the study of DMS-IQA."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from markupsafe import Markup
from rich.markup import escape
from rich.table import Table

from resolute.files import write_text
from resolute.measure.intervals import Interval
from resolute.report.assets import MEGABYTES, asset, embed, environment, plotting_library
from resolute.report.certified_images import scored_images
from resolute.report.certified_iqa_charts import charts_of
from resolute.report.text import DASH, MINUS
from resolute.studies.certified_iqa_summary import Results, Shift, Spread, Standing

AGREEMENT = ("images", "SROCC", "PLCC", "PLCC, logistic", "τ, SROCC", "τ, PLCC")
CERTIFIED = (
    "δ, mean",
    "median",
    "90 %",
    "width",
    "δ raw, mean",
    "width raw, mean",
    "abstained",
    "vacuous",
    "samples",
    "s / image",
)
SHIFTS = (
    "mode",
    "attack",
    "images",
    "l2",
    "empirical mean",
    "empirical median",
    "certified δ",
    "certified",
    "left",
    "strayed",
)


def agreement_cells(standing: Standing) -> list[str]:
    """Return a contender's agreement with opinions, as the columns ``AGREEMENT`` print it."""
    found = standing.agreement
    intervals = (found.srocc, found.plcc, found.plcc_logistic) if found else (None, None, None)
    return [
        str(standing.images),
        *(_interval(value) for value in intervals),
        *(_interval(value, signed=True) for value in (standing.tau_srocc, standing.tau_plcc)),
    ]


def certified_cells(standing: Standing) -> list[str]:
    """Return a contender's certified figures, as the columns ``CERTIFIED`` print them; shares are in per cent."""
    delta, width, raw, raw_width = standing.delta, standing.width, standing.delta_raw, standing.width_raw
    return [
        _percent(delta and delta.mean), _percent(delta and delta.median), _percent(delta and delta.p90),
        _percent(width and width.mean), _raw(raw), _raw(raw_width), str(standing.abstained), str(standing.vacuous),
        f"{standing.samples:.0f}", f"{standing.seconds:.2f}",
    ]  # fmt: skip


def shift_cells(shift: Shift) -> list[str]:
    """Return what an attack did, as the columns ``SHIFTS`` print it."""
    budget = f"{shift.budget:g}/255" if shift.norm == "linf" else f"l2 {shift.budget:g}"
    return [
        shift.mode, f"{shift.attack} {budget}", str(shift.images), f"{shift.l2:.3g}", _percent(shift.mean, True),
        _percent(shift.median, True), _percent(shift.certified), str(shift.checked), str(shift.left),
        str(shift.strayed),
    ]  # fmt: skip


def iqa_tables(results: Results) -> list[Table]:
    """Return the tables for the terminal: agreement, certificates, attacks."""
    groups: list[tuple[str, Sequence[str], list[tuple[str, list[str]]]]] = [
        ("Agreement with people, 95 % bootstrap intervals; τ is what agreement loses.", AGREEMENT,
         [(_name(s), agreement_cells(s)) for s in results.standings]),
        (_certified_caption(results), CERTIFIED,
         [(_name(s), certified_cells(s)) for s in results.standings if s.certified]),
        (SHIFT_CAPTION, SHIFTS, [(_name(s), shift_cells(s)) for s in results.shifts]),
    ]  # fmt: skip
    found: list[Table] = []
    for caption, header, rows in groups:
        if rows:
            table = Table(caption=caption)
            table.add_column("defence", overflow="fold")
            for name in header:
                table.add_column(name, justify="right")
            for name, cells in rows:
                table.add_row(escape(name), *cells)
            found.append(table)
    return found


def iqa_markdown(folders: Sequence[Path], out: Path) -> Path:
    """Write the summary and the tables of such studies as Markdown; return the path.

    Raises:
        ConfigError: a folder without results of the kind.
        OutputError: the file cannot be written.
    """
    write_text(out, "\n".join(line for folder in folders for line in _lines(Results.read(folder))) + "\n")
    return out


def iqa_page(folders: Sequence[Path], out: Path, *, megabytes: float = MEGABYTES) -> Path:
    """Write one self-contained page about such studies; return its path.

    Raises:
        ConfigError: a folder without results of the kind.
        OutputError: the file cannot be written.
    """
    studies = [Results.read(folder) for folder in folders]
    charts = [charts_of(results, number) for number, results in enumerate(studies)]
    data = {"charts": {chart.id: chart.figure for group in charts for chart in group}, "cases": [], "pictures": []}
    room = int(megabytes * 1_000_000) - len(plotting_library()) - len(embed(data)) - 200_000
    images = [scored_images(results.scores, room // len(studies)) for results in studies]
    page = (
        environment()
        .get_template("certified_iqa.html.j2")
        .render(
            version=metadata.version("resolute"),
            studies=[
                {
                    "facts": results.facts,
                    "sentences": results.sentences(),
                    "agreement": [[_name(s), *agreement_cells(s)] for s in results.standings],
                    "certified": [[_name(s), *certified_cells(s)] for s in results.standings if s.certified],
                    "certified_caption": _certified_caption(results),
                    "shifts": [[_name(s), *shift_cells(s)] for s in results.shifts],
                    "charts": group,
                    "images": scored,
                    "crowded": crowded,
                }
                for results, group, (scored, crowded) in zip(studies, charts, images, strict=True)
            ],
            headers={"agreement": AGREEMENT, "certified": CERTIFIED, "shifts": SHIFTS},
            shift_caption=SHIFT_CAPTION,
            style=Markup(asset("page.css")),
            script=Markup(asset("sorting.js") + asset("page.js")),
            plotly=plotting_library(),
            data=embed(data),
        )
    )
    write_text(out, page.encode(errors="replace").decode())
    return out


SHIFT_CAPTION = (
    "Attacks: empirical shifts towards better quality, in per cent of the metric's range, beside the certified δ at "
    "the norm of the perturbation where there is one. “undefended” was found on the metric alone, “adaptive” is the "
    "worse of that attack and one through the defence. Certified counts the images with an interval at that norm; "
    "left, those whose true median is provably outside, must be 0 up to alpha; strayed, those whose sampled median is."
)


def _lines(results: Results) -> Iterable[str]:
    facts = results.facts
    yield f"# {facts['study']['name']}\n"
    yield from (f"{sentence}\n" for sentence in results.sentences())
    yield from _table(AGREEMENT, [[_name(s), *agreement_cells(s)] for s in results.standings])
    yield f"\n{_certified_caption(results)}\n"
    yield from _table(CERTIFIED, [[_name(s), *certified_cells(s)] for s in results.standings if s.certified])
    if results.shifts:
        yield f"\n{SHIFT_CAPTION}\n"
        yield from _table(SHIFTS, [[_name(s), *shift_cells(s)] for s in results.shifts])
    made = facts["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    yield f"\nMade by `{made['command']}`, {made['date'][:10]}, {made['hardware']}, {versions}.\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    yield f"| defence | {' | '.join(header)} |"
    yield f"|---|{'--:|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _certified_caption(results: Results) -> str:
    made = results.facts["study"]
    return (
        f"Certified for l2 norms up to {made['epsilon']:g}, noise of sigma {made['sigma']:g}, with confidence "
        f"{100 * (1 - made['alpha']):g} % an image: δ is the larger side of the interval, in per cent of the "
        "metric's range."
    )


def _name(item: Standing | Shift) -> str:
    return f"{item.contender} ({item.metric})"


def _interval(value: Interval | None, signed: bool = False) -> str:
    if value is None:
        return DASH
    sign = "+" if signed else ""
    return f"{value.mean:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]".replace("-", MINUS)


def _percent(value: float | None, signed: bool = False) -> str:
    return DASH if value is None else f"{100 * value:{'+' if signed else ''}.2f} %".replace("-", MINUS)


def _raw(value: Spread | None) -> str:
    return DASH if value is None else f"{value.mean:.3g}"
