"""Commands around leaderboards: leaderboard, submit, recheck."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import Device, app, check_folder
from resolute.cli.records import tell_bad
from resolute.errors import BadRecordsError, ConfigError
from resolute.figures import figure
from resolute.studies.study import count
from resolute.terminal import console, name_file


@app.command(epilog="Example:  [bold]resolute leaderboard runs/ --out site/[/bold]")
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Holds entries (.json) and folders of finished studies.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the site; FOLDER/site if not given.", callback=check_folder)
    ] = None,
) -> None:
    """Build a leaderboard as a static site: one for every suite of attacks and set of images, and a page an entry."""
    from resolute.leaderboard.site import bad_entries, build_site

    page, notes = build_site(folder, out or folder / "site")
    for note in notes:
        console.print(f"[yellow]left out:[/yellow] {escape(note)}", highlight=False)
    name_file("leaderboard", page)
    tell_bad(path for path in sorted(folder.iterdir()) if (path / "study.json").is_file())
    if bad := bad_entries(folder):
        raise BadRecordsError(f"{count(len(bad), 'bad entry was', 'bad entries were')} left out, the rest counts")


@app.command(epilog="Example:  [bold]resolute submit runs/bsd100 --model mine --submitter 'A. Person'[/bold]")
def submit(
    run: Annotated[Path, typer.Argument(help="Folder of a finished study.")],
    model: Annotated[str, typer.Option(help="The model, as the study calls it.")],
    data: Annotated[str | None, typer.Option(help="Data set, where the study has several.")] = None,
    submitter: Annotated[str, typer.Option(help="Who stands for the entry.")] = "",
    link: Annotated[str, typer.Option(help="To a paper or the weights, with https.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the entry; the current one if not given.", callback=check_folder)
    ] = None,
) -> None:
    """Write the entry of a model for a leaderboard, from the records of a study."""
    from resolute.files import write_text
    from resolute.leaderboard.building import entry_of
    from resolute.leaderboard.site import stem_of

    entry = entry_of(run, model, data, submitter=submitter, link=link)
    path = (out or Path()) / f"{stem_of(entry)}.json"
    write_text(path, entry.to_json())
    name_file("entry", path)


@app.command(
    epilog="Example:  [bold]resolute recheck entry.json runs/bsd100 --weights mine.pth[/bold]\n\n"
    "A published network:  [bold]resolute recheck records.parquet carn-m --weights carn_m.pth#x4 "
    "--images BSD100/[/bold]"
)
def recheck(
    entry: Annotated[
        Path, typer.Argument(help="The entry, a JSON file; or the records of published networks, a Parquet file.")
    ],
    run: Annotated[str, typer.Argument(help="Folder of the study that it was made from; or the network's id.")],
    replay: Annotated[int, typer.Option(help="Send so many attacked images through the model again.", min=0)] = 5,
    repeat: Annotated[int, typer.Option(help="Run so many of the attacks again.", min=0)] = 2,
    weights: Annotated[
        list[str] | None, typer.Option(help="Where the model is: a file or FILE.py:NAME; may be repeated.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Where the images are, as in the study: NAME=FOLDER, or FOLDER; may be repeated."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Check an entry: compute its figures again from the records, and some records from the model and the images.

    Of a published network, give the file of records and the network's id. That file keeps no attacked images, so that
    attacks alone are run again; a network that comes with Resolute needs no --weights. Attacks that find clearly more
    than the records say refute them; attacks that find less do not, and are named.

    Exit code 0 where the entry holds, 5 where it does not, or where the model or the images are missing.
    """
    from resolute.leaderboard.building import entry_of_records
    from resolute.leaderboard.checking import differences, done_again, gaps, published_again
    from resolute.leaderboard.compact import read_runs
    from resolute.leaderboard.entry import read_entry
    from resolute.leaderboard.gathering import SCALE
    from resolute.leaderboard.ranking import Placed
    from resolute.runtime import resolve_device
    from resolute.studies.kinds import standard_suite
    from resolute.studies.summary import HEADLINE

    where = weights or (), images or (), resolve_device(device)
    if entry.suffix == ".parquet":
        name, records = f"{run} of {entry.name}", read_runs(entry, run)[run].records
        said, told = entry_of_records(records, SCALE), gaps(records, standard_suite())
        # It keeps no attacked images: whoever asks for those gets an attack.
        attacks = max(repeat, 1) if replay else repeat
        again = published_again(records, standard_suite(), attacks, *where) if attacks and not told else None
    else:
        name, said = entry.name, read_entry(entry)
        told = differences(said, Path(run))
        again = done_again(said, Path(run), replay, repeat, *where) if replay or repeat else None
    checked = f"{said.cells} records"
    if again is not None:
        told += again.told
        parts = [count(again.replayed, "attacked image")] if again.replayed else []
        checked += f", {' and '.join([*parts, count(again.repeated, 'attack')])} run again"
    if told:
        more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
        raise ConfigError(f"{name} does not hold: {'; '.join(told[:5])}{more}")
    console.print(f"{escape(name)} holds: computed again from {checked}", highlight=False)
    row = Placed(said, None)
    if (kept := row.kept()) is not None:
        attacked = f"{figure(kept)} dB against the truth at {HEADLINE:g}/255"
        console.print(f"It keeps {attacked}, and has {figure(row.clean)} dB without an attack.", highlight=False)
    if again is None:
        console.print("Records that were made up would hold too: leave out --replay 0 and --repeat 0 to find them.")
    elif again.repeated:
        console.print(f"What was run again lies up to {figure(again.apart)} dB from the records.", highlight=False)
        for text in again.weaker:
            console.print(f"[yellow]weaker this time, which refutes nothing:[/yellow] {escape(text)}", highlight=False)
