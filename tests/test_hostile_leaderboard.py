"""A board of entries and runs that anyone may have written: it is built, honest ones stand, and liars are named."""

import dataclasses
import json
import shutil

import pytest
from odd import damaged, forged, one_line, text_of, tried, value
from small import edit, read_lines
from test_cli import run as typed

from resolute.errors import ConfigError
from resolute.leaderboard import build_site, entries_of, entry_of, read_entry
from resolute.leaderboard.checking import done_again


@pytest.fixture(scope="module")
def honest(finished):
    """Entries of people, and the run that they are from."""
    return [entry.model_copy(update={"submitter": "Me"}) for entry in entries_of(finished)[0]]


@pytest.fixture
def folder(honest, finished, tmp_path):
    folder = tmp_path / "all"
    for number, entry in enumerate(honest):
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.json").write_text(entry.to_json())
    for name in ("good", "odd"):
        (folder / name).mkdir()
        for file in ("records.jsonl", "study.json"):
            shutil.copyfile(finished / file, folder / name / file)
    return folder


def lie(rng, row):
    """A record whose figures are possible one by one."""
    names = (
        "sr_psnr",
        "epsilon",
        "linf",
        "seconds",
        "model",
        "image",
        "attack",
        "configuration",
        "seed",
        "pixels",
        "dataset",
    )
    return row | {rng.choice(names): value(rng)}


@tried(4, 100)
def test_hostile_sets_displace_nobody(rng, honest, folder, tmp_path):
    for number in range(3):
        entry = json.loads(rng.choice(honest).to_json())
        content = damaged(rng, text_of(entry)) if rng.random() < 0.2 else text_of(forged(rng, entry))
        # Before and after the honest ones, for order must not matter.
        (folder / f"{rng.choice('az')}{number}.json").write_bytes(content)
    rows = read_lines(folder / "odd" / "records.jsonl")
    chosen = rng.choice((("tiny",), ("tiny", "bicubic"), ("bicubic",)))
    lines = [text_of(lie(rng, row) if row["model"] in chosen else row) for row in rows]
    (folder / "odd" / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    code, _, stderr = typed("leaderboard", folder, "--out", tmp_path / "site")
    assert code in (0, 11), stderr
    notes = build_site(folder, tmp_path / "site")[1]
    listed = [read_entry(path) for path in (tmp_path / "site" / "entries").glob("*.json")]
    assert all(entry in listed for entry in honest)
    for path in folder.glob("[az]*.json"):
        try:
            entry = read_entry(path)
        except ConfigError as error:
            one_line(error, path.name)
            assert code == 11
            assert any(note.startswith(path.name) for note in notes), notes
        else:
            assert any(entry.identity == one.identity for one in listed)
    page = (tmp_path / "site" / "index.html").read_text()
    assert "<b>&\"'" not in page


@tried(1, 12)
def test_records_that_claim_too_much_are_found_by_doing_some_again(rng, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    name, more = rng.choice(("sr_psnr", "attacked_psnr_y")), rng.uniform(2, 60)
    edit(run, lambda record: dataclasses.replace(record, **{name: getattr(record, name) + more}))
    assert done_again(entry_of(run, "tiny"), run, 3, 1).told
