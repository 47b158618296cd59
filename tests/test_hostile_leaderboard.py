"""A board of entries and runs that anyone may have written: it is built, honest ones stand, and liars are named."""

import dataclasses
import json
import shutil

import pytest
from odd import damaged, forged, one_line, text_of, tried, value
from small import edit, read_lines
from test_cli import run as typed

from resolute import run
from resolute.errors import ConfigError
from resolute.images import sample_image, write_png
from resolute.leaderboard import build_site, certified_scores, entries_of, entry_of, read_entry
from resolute.leaderboard.certified import certified_boards
from resolute.leaderboard.certified_scores import score_boards
from resolute.leaderboard.checking import done_again
from resolute.studies.certified_iqa import Attacks, CertifiedIqa, Contender
from resolute.studies.restoration import Restoration


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


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A finished study of certified restoration."""
    folder = tmp_path_factory.mktemp("certified")
    write_png(folder / "photo.png", sample_image("coffee")[:, 100:110, 100:111])
    study = Restoration(
        models=("bicubic",), images=(str(folder / "photo.png"),), high_resolution=False, scale=2, sigmas=(0.05, 0.1),
        epsilons=(0.01,), samples=96, seed=0,
    )  # fmt: skip
    run(study, folder / "good")
    return folder / "good"


def rows_of(*runs):
    return {tuple(str(cell.value) for cell in one.cells) for b in certified_boards(runs)[0] for one in b.table.rows}


@tried(4, 100)
def test_forged_certificates_take_no_honest_row_away(rng, certified, tmp_path):
    # Before and after the honest one, for order must not matter.
    bad = shutil.copytree(certified, tmp_path / rng.choice(("bad", "worse")))
    rows = read_lines(bad / "records.jsonl")
    name, odd = rng.choice(sorted(rows[0])), rng.choice((value(rng), 99.0))
    (bad / "records.jsonl").write_bytes(b"\n".join(text_of(row | {name: odd}) for row in rows))
    if rng.random() < 0.3:
        facts = json.loads((bad / "study.json").read_bytes())
        (bad / "study.json").write_bytes(rng.choice((b"[" * 99_999, text_of(forged(rng, facts)))))
    good = shutil.copytree(certified, tmp_path / "good")
    page, _ = build_site(tmp_path, tmp_path / "site")
    assert "<b>&\"'" not in page.read_text()
    told = {row[1:] for row in rows_of(*sorted((good, bad)))}
    assert told >= {row[1:] for row in rows_of(certified)}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """A finished study of certified scores with opinions."""
    folder = tmp_path_factory.mktemp("metrics")
    lines = ["path,mos,split"]
    for number, name in enumerate(("coffee", "chelsea", "rocket")):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:132, 100:132])
        lines.append(f"{name}.png,{number},test")
    (folder / "photos" / "mos.csv").write_text("\n".join(lines))
    study = CertifiedIqa(
        name="m", metric="quality-s", images=str(folder / "photos"), attacks=Attacks(images=0), samples=40,
        contenders=(Contender(defence="MS", smoothed=True), Contender(defence="none")),
    )  # fmt: skip
    run(study, folder / "good")
    return folder / "good"


def scores_of(*runs):
    """Return the rows of all tables, but for what a defence is called."""
    return {
        tuple(str(cell.value) for place, cell in enumerate(one.cells) if place != 1)
        for board in score_boards(runs)[0]
        for table in (board.certified, board.measured)
        for one in table.rows
    }


@tried(6, 100)
def test_forged_scores_take_no_honest_row_away(rng, metrics, tmp_path, monkeypatch):
    monkeypatch.setattr(certified_scores, "RESAMPLES", 9)
    # Before and after the honest one, for order must not matter.
    bad = shutil.copytree(metrics, tmp_path / rng.choice(("bad", "worse")))
    rows = read_lines(bad / "records.jsonl")
    for row in rows if rng.random() < 0.5 else rows[:1]:
        inner = rng.choice([one for one in (row, row["smoothing"], row["scorer"]) if one])
        inner[rng.choice(sorted(inner))] = rng.choice((value(rng), 99.0))
    (bad / "records.jsonl").write_bytes(b"\n".join(map(text_of, rows)))
    good = shutil.copytree(metrics, tmp_path / "good")
    page, _ = build_site(tmp_path, tmp_path / "site")
    assert "<b>&\"'" not in page.read_text()
    assert scores_of(*sorted((good, bad))) >= scores_of(metrics)
