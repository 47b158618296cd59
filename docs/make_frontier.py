"""Make the picture of what hardening costs and buys, from rows of benchmarks/methods.py.

    python docs/make_frontier.py FOLDER ...

Rows of the folders are taken into docs/hardening/frontier.jsonl, and docs/images/frontier.webp is drawn from all that
are there: for every network clean PSNR against what the worst attack leaves, a curve a method, along the straight line
between the weights before and after. It needs Chromium, as the tests of the pages do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from drawing import draw

from resolute.chart import Figure, axis, curve, layout_of, look_of, roomy
from resolute.files import write_text

DOCS = Path(__file__).parent
ROWS = DOCS / "hardening" / "frontier.jsonl"
BEFORE = "before"


def main() -> None:
    """Take rows in, and draw."""
    rows = {(row["model"], row["method"], row["share"]): row for row in read(ROWS)}
    for folder in sys.argv[1:]:
        for row in read(Path(folder) / "rows.jsonl"):
            short = {key: value for key, value in row.items() if key not in ("each", "seconds")}
            short |= {"model": named(row["model"])} | {key: round(row[key], 4) for key in ("clean", "truth", "kept")}
            rows[short["model"], row["method"], row["share"]] = short
    write_text(ROWS, "".join(f"{json.dumps(rows[key])}\n" for key in sorted(rows)))
    found = list(rows.values())
    draw([figure(found, model) for model in sorted({row["model"] for row in found})], "frontier.webp")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def named(address: str) -> str:
    """Return what a network is called."""
    return "CARN-M" if "carn" in address.lower() else address.split(":")[-1].split("#")[0].split("_")[0]


def figure(rows: list[dict[str, Any]], model: str) -> Figure:
    """Return the chart of one network; a curve begins at the network as it was."""
    own = [row for row in rows if row["model"] == model]
    (start,) = (row for row in own if row["method"] == BEFORE)
    methods = sorted({row["method"] for row in own} - {BEFORE})
    data: list[Figure] = []
    for method in methods:
        points = [start, *sorted((row for row in own if row["method"] == method), key=lambda row: row["share"])]
        colour, marker = look_of(method, methods)
        line = curve(method, [row["clean"] for row in points], [row["truth"] for row in points], mode="lines+markers")
        data.append({**line, "line": {"color": colour}, "marker": {"symbol": marker, "color": colour, "size": 8}})
    layout = layout_of(axis("clean PSNR (Y), dB"), axis(f"{model}: attacked, against the original, dB"))
    return {"data": data, "layout": {**roomy(layout, len(methods)), "width": 620, "paper_bgcolor": "white"}}


if __name__ == "__main__":
    main()
