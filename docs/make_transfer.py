"""Show every network of some runs what was found for every other: ``python docs/make_transfer.py RUNS --out FOLDER``.

RUNS is a folder of finished runs of ``resolute benchmark``, one network each. What APGD found for a network at 4/255 is
given to all networks, and judged in float32: the mean SR-PSNR and PSNR against the truth (Y) over the first images, a
file a network that is shown them. Several processes share the work. With ``--merge`` all lines of FOLDER go into
docs/leaderboard/transfer.parquet, and nothing is computed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from torch import Tensor

from resolute.defences import load_defended
from resolute.files import write_atomically, write_text
from resolute.images import read_image
from resolute.leaderboard.compact import DIGITS
from resolute.measure.fidelity import psnr_rgb, psnr_y
from resolute.models.foreign import Foreign
from resolute.report.reading import StudyFolder, read_source
from resolute.runtime import full_float32, resolve_device
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.peers import MIX
from resolute.studies.summary import HEADLINE

FOUND_BY = "apgd"
SCALE = 4
RECORDS = Path(__file__).parent / "leaderboard" / "transfer.parquet"


def main() -> None:
    """Do one of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the lines, one file a network")
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--count", type=int, default=20, help="so many of the suite's images")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    if asked.merge:
        merge(asked.out, RECORDS)
        return
    sources = {path.parent.name: read_source(path.parent) for path in sorted(asked.runs.glob("*/study.json"))}
    attacked = {id: batch for id, source in sources.items() if (batch := found_for(source, asked.count)) is not None}
    asked.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(resolve_device(asked.device))
    for target in attacked:
        lines = asked.out / f"{target}.jsonl"
        try:
            os.close(os.open(lines.with_suffix(".claimed"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        rows = judged(sources[target], target, attacked, device)
        write_text(lines, "".join(json.dumps(row) + "\n" for row in rows))


def found_for(source: StudyFolder, count: int) -> Tensor | None:
    """Return the first attacked images of a run, ``(count, 3, h, w)``, in the order of the suite's names; None of none.

    Mixtures with bicubic interpolation are left out.
    """
    found = {
        record.image: source.store.folder / record.files[0]
        for record in source.records
        if isinstance(record, AttackRecord)
        and (record.attack, round(record.epsilon * 255)) == (FOUND_BY, HEADLINE)
        and record.files
    }
    assert isinstance(source.study, Grid)
    if set(found) != set(source.study.names) or MIX in source.study.models[0]:
        return None
    return torch.stack([read_image(found[name]) for name in source.study.names[:count]])


def judged(
    source: StudyFolder, target: str, attacked: dict[str, Tensor], device: torch.device
) -> list[dict[str, object]]:
    """Return a line for every network whose images a model is given."""
    assert isinstance(source.study, Grid)
    model = load_defended(source.study.models[0], SCALE).requires_grad_(False).to(device).eval()
    if isinstance(model, Foreign):
        model.lay_out()
    subjects = source.study.subjects()[: len(attacked[target])]
    low = torch.cat([subject.low for subject in subjects]).to(device)
    truth = torch.cat([subject.truth for subject in subjects if subject.truth is not None]).to(device)
    rows: list[dict[str, object]] = []
    with torch.no_grad(), full_float32():
        clean = model(low)
        for name, images in attacked.items():
            output = model(images.to(device))
            figures = {"sr_psnr": psnr_rgb(clean, output), "psnr_y": psnr_y(output, truth, SCALE)}
            means = {figure: round(float(values.mean()), DIGITS) for figure, values in figures.items()}
            rows.append({"target": target, "source": name, **means})
    return rows


def merge(folder: Path, parquet: Path) -> None:
    """Write the lines of all networks into one file."""
    import duckdb

    with duckdb.connect() as connection:
        rows = connection.sql(f"SELECT * FROM read_json('{folder}/*.jsonl') ORDER BY target, source")
        write_atomically(parquet, lambda path: rows.write_parquet(str(path), compression="zstd"))


if __name__ == "__main__":
    main()
