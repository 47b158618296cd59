"""The report on a metric as a training loss: verdicts, tables, and the restored pictures side by side."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic
from markupsafe import Markup
from rich import box
from rich.markup import escape
from rich.table import Table

from resolute.errors import ConfigError, ImageError
from resolute.files import write_text
from resolute.images import read_image, to_uint8
from resolute.report.assets import MEGABYTES, asset, environment
from resolute.report.encode import Album
from resolute.report.text import DASH, MINUS, figure
from resolute.studies.metric_as_loss import training_of
from resolute.studies.metric_as_loss_summary import Measure, Verdict, verdicts
from resolute.studies.store import read_lines

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a folder of results says.

    Attributes:
        folder: where it lies.
        facts: of ``study.json``.
        rows: the records of the study that ``study.json`` is of, for the images that all its restorers have; those of
            a changed study are left out.
        measures: columns of the tables.
        verdicts: on every restorer but the control.
    """

    folder: Path
    facts: Mapping[str, Any]
    rows: list[Row]
    measures: list[Measure]
    verdicts: list[Verdict]

    @staticmethod
    def read(folder: Path) -> Finding:
        """Read a folder.

        Raises:
            ConfigError: it holds no results of such a study.
        """
        try:
            facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
            measures = pydantic.TypeAdapter(list[Measure]).validate_python(facts["measures"])
            control, settings = str(facts["study"]["control"]), str(facts["settings"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{folder} holds no results of the kind metric-as-loss: {error}") from None
        latest = {
            (row["restorer"], row["image"]): row
            for row in read_lines(folder / "records.jsonl")
            if row.get("settings") == settings
        }
        if not latest:
            raise ConfigError(f"no records in {folder}; run the study into that folder first, or name another one")
        labels = {label for label, _ in latest}
        # Means over different images could not be compared.
        shared = {image for _, image in latest if all((label, image) in latest for label in labels)}
        rows: list[Row] = [row for (_, image), row in latest.items() if image in shared]
        if not shared:
            raise ConfigError(f"the restorers in {folder} have no image in common; run the study to its end")
        return Finding(folder, facts, rows, measures, verdicts(rows, measures, control))

    @property
    def control(self) -> str:
        """Label of what the others are compared with."""
        return str(self.facts["study"]["control"])

    @property
    def images(self) -> list[str]:
        """Names of the images, in order of appearance."""
        return list(dict.fromkeys(row["image"] for row in self.rows))

    def means(self) -> list[list[str]]:
        """Return the label of each restorer, the mean of every measure, and seconds a training step."""
        training = training_of(self.rows)
        table: list[list[str]] = []
        for label in dict.fromkeys(row["restorer"] for row in self.rows):
            own = [row["values"] for row in self.rows if row["restorer"] == label]
            cells = [_mean([values[measure.name] for values in own], measure) for measure in self.measures]
            seconds = training.get(label, {}).get("seconds_per_step")
            table.append([label, *cells, figure(seconds, 3)])
        return table

    def changes(self) -> list[list[str]]:
        """Return the label of each restorer but the control, and what every measure gained or lost."""
        table: list[list[str]] = []
        for found in self.verdicts:
            by_name = {change.measure.name: change.figures.replace("-", MINUS) for change in found.changes}
            table.append([found.restorer, found.outcome, *(by_name.get(m.name, DASH) for m in self.measures)])
        return table

    def header(self) -> list[str]:
        """Return the titles of the measures."""
        units = [", ".join(filter(None, [m.unit, "lower is better" if m.lower_better else ""])) for m in self.measures]
        return [f"{m.name} ({unit})" if unit else m.name for m, unit in zip(self.measures, units, strict=True)]


def restorers_table(finding: Finding) -> Table:
    """Return the means for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, caption=f"Means over {len(finding.images)} images. {_caption(finding)}")
    table.add_column("restorer", no_wrap=True)
    for name in [*finding.header(), "s / step"]:
        table.add_column(name, justify="right", min_width=5, overflow="fold")
    for row in finding.means():
        table.add_row(*map(escape, row))
    return table


def restorers_markdown(folders: Sequence[Path], out: Path) -> Path:
    """Write verdicts, tables and provenance of such studies as Markdown; return the path.

    Raises:
        ConfigError: a folder without results of the kind.
        OutputError: the file cannot be written.
    """
    lines = [line for folder in folders for line in _lines(Finding.read(folder))]
    write_text(out, "\n".join(lines).encode(errors="replace").decode() + "\n")
    return out


def restorers_page(folders: Sequence[Path], out: Path, *, megabytes: float = MEGABYTES) -> Path:
    """Write one self-contained HTML page about such studies; return the path.

    Raises:
        ConfigError: a folder without results of the kind.
        OutputError: the file cannot be written.
    """
    findings = [Finding.read(folder) for folder in folders]
    page = (
        environment()
        .get_template("metric_as_loss.html.j2")
        .render(
            version=metadata.version("resolute"),
            findings=[
                (finding, _caption(finding), *_rows_of_pictures(finding, int(megabytes * 900_000) // len(findings)))
                for finding in findings
            ],
            style=Markup(asset("page.css")),
            script=Markup(asset("sorting.js")),
        )
    )
    write_text(out, page.encode(errors="replace").decode())
    return out


def _rows_of_pictures(finding: Finding, room: int) -> tuple[list[tuple[str, list[tuple[str, str, list[str]]]]], int]:
    """Return, for each image, label, data URI and figures of its versions, and how many images found no room.

    Images without a picture are left out.
    """
    album, crowded = Album(), 0
    shown: list[tuple[str, list[tuple[str, str, list[str]]]]] = []
    for image in finding.images:
        known = len(album.uris)
        tiles: list[tuple[str, str, list[str]]] = []
        for row in finding.rows:
            if row["image"] != image:
                continue
            try:
                pixels = to_uint8(read_image(finding.folder / "pictures" / f"{row['key']}.png"))
            except ImageError:
                continue
            values = [(measure, row["values"][measure.name]) for measure in finding.measures]
            figures = [f"{m.name} {figure(value, m.digits, infinite=m.name == 'PSNR')}" for m, value in values]
            tiles.append((row["restorer"], album.uris[album.add(pixels, quality=90)], figures))
        if album.size > room:
            album.forget(known)
            crowded += 1
        elif tiles:
            shown.append((image, tiles))
    return shown, crowded


def _lines(finding: Finding) -> Iterable[str]:
    for found in finding.verdicts:
        yield f"{found.sentence}\n"
    yield f"Means over {len(finding.images)} images. {_caption(finding)}\n"
    yield from _table(["restorer", *finding.header(), "seconds a training step"], finding.means())
    yield f"\nChange against {finding.control}, means of paired differences [95 % bootstrap]:\n"
    yield from _table(["restorer", "verdict", *finding.header()], finding.changes())
    yield "\nHow it was made:\n"
    made = finding.facts["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    yield f"- `{made['command']}`, {made['date'][:10]}, {made['hardware']}, {versions}"
    for label, weights in {row["restorer"]: row["weights"] for row in finding.rows if row["training"]}.items():
        yield f"- {_cell(label)}: weights sha256 `{weights[:16]}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    for row in (header, ["---", *("--:" for _ in header[1:])], *rows):
        yield f"| {' | '.join(map(_cell, row))} |"


def _caption(finding: Finding) -> str:
    study = finding.facts["study"]
    denoiser = f" and behind {Path(study['denoiser']).stem}" if study["denoiser"] else ""
    return (
        f"Noise of {study['sigma']:g} on clean photographs; SSIM on Y. Defended: the median score under noise of "
        f"{study['smoothing']:g}{denoiser}, {study['samples']} samples."
    )


def _mean(values: Sequence[float | None], measure: Measure) -> str:
    known = [value for value in values if value is not None]
    return figure(statistics.fmean(known), measure.digits) if known else DASH


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
