"""Commands around leaderboards: leaderboard, submit, recheck."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from resolute.cli.app import app
from resolute.cli.records import tell_bad
from resolute.errors import BadRecordsError, ConfigError
from resolute.studies.study import count
from resolute.terminal import console, name_file


@app.command(epilog="Example:  [bold]resolute leaderboard runs/ --out site/[/bold]")
def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Holds entries (.json) and folders of finished studies.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the site; FOLDER/site if not given.")] = None,
) -> None:
    """Build a static site: a leaderboard for every suite of attacks and set of images, and a page for every entry."""
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
    out: Annotated[Path | None, typer.Option(help="Folder for the entry; the current one if not given.")] = None,
) -> None:
    """Write the entry of a model for a leaderboard, from the records of a study."""
    from resolute.files import write_text
    from resolute.leaderboard.building import entry_of
    from resolute.leaderboard.site import stem_of

    entry = entry_of(run, model, data, submitter=submitter, link=link)
    path = (out or Path()) / f"{stem_of(entry)}.json"
    write_text(path, entry.to_json())
    name_file("entry", path)


@app.command(epilog="Example:  [bold]resolute recheck entry.json runs/bsd100 --weights mine.pth[/bold]")
def recheck(
    entry: Annotated[Path, typer.Argument(help="The entry, a JSON file.")],
    run: Annotated[Path, typer.Argument(help="Folder of the study that it was made from.")],
    replay: Annotated[int, typer.Option(help="Send so many attacked images through the model again.", min=0)] = 5,
    repeat: Annotated[int, typer.Option(help="Run so many of the attacks again.", min=0)] = 2,
    weights: Annotated[
        list[str] | None, typer.Option(help="Where the model is: a file or FILE.py:NAME; may be repeated.")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option(help="Where the images are, as in the study: NAME=FOLDER; may be repeated.")
    ] = None,
) -> None:
    """Check an entry: compute its figures again from the records, and some records from the model and the images.

    Exit code 0 where the entry holds, 5 where it does not, or where the model or the images are missing.
    """
    from resolute.leaderboard.checking import differences, done_again
    from resolute.leaderboard.entry import read_entry

    said = read_entry(entry)
    told = differences(said, run)
    checked = f"{said.cells} records"
    if replay or repeat:
        again = done_again(said, run, replay, repeat, weights or (), images or ())
        told += again.told
        checked += f", {count(again.replayed, 'attacked image')} and {count(again.repeated, 'attack')} run again"
    if told:
        more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
        raise ConfigError(f"{entry.name} does not hold: {'; '.join(told[:5])}{more}")
    console.print(f"{escape(entry.name)} holds: computed again from {checked}", highlight=False)
    if not (replay or repeat):
        console.print("Records that were made up would hold too: leave out --replay 0 and --repeat 0 to find them.")
