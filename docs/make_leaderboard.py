"""Write the leaderboard of published networks again: ``python docs/make_leaderboard.py [FOLDER_OF_RUNS ...]``.

Finished runs of ``resolute benchmark`` below the folders join the records in docs/leaderboard/records.parquet.
From all of them follow docs/leaderboard/index.html and the summary that ``resolute benchmark`` compares models with.
Without a folder all is written again from the records. ``--out`` and ``--peers`` write elsewhere.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from resolute.files import write_text
from resolute.leaderboard.compact import read_runs, write_runs
from resolute.leaderboard.gathering import gather, peers_of, rows_of
from resolute.leaderboard.network import read_networks
from resolute.leaderboard.networks_page import write_networks_page
from resolute.studies.peers import FILE, peers_text

FOLDER = Path(__file__).parent / "leaderboard"


def main() -> None:
    """Write all three files, and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="folders whose folders are runs")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--peers", type=Path, default=Path(str(resources.files("resolute.studies"))) / FILE)
    asked = parser.parse_args()
    networks = read_networks(FOLDER / "networks.toml")
    records = asked.out / "records.parquet"
    folders = sorted(path.parent for folder in asked.runs for path in folder.glob("*/study.json"))
    found = gather(folders, networks, read_runs(records) if records.is_file() else {})
    for note in found.notes:
        print(f"left out: {note}")
    rows = rows_of(found.runs, networks)
    write_runs(records, found.runs)
    write_networks_page(rows, asked.out / "index.html", waiting=len(networks.keys() - found.runs.keys()))
    write_text(asked.peers, peers_text(peers_of(rows, found.runs)))
    ranked = sum(row.rank is not None for row in rows)
    print(f"{len(rows)} rows, {ranked} of them ranked; {records.stat().st_size / 1e6:.2f} MB of records")


if __name__ == "__main__":
    main()
