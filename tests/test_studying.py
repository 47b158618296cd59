"""The study command as a person types it: plan, live display, workers, remote folders, Ctrl-C."""

import io
import json
import os
import re
import signal
import time
from types import SimpleNamespace

import fsspec
import pytest
from rich.console import Console
from typer.testing import CliRunner
from warm import Typed

from resolute import run as run_study
from resolute.cli import app
from resolute.engine import Store
from resolute.engine.remote import at_place
from resolute.engine.running import plan_of
from resolute.errors import ConfigError, OutputError
from resolute.models import EDSR, Card
from resolute.models.weights import save_model
from resolute.studies import AttackRecord
from resolute.studies.kinds import read_study
from resolute.terminal import Pace, StudyDisplay, duration


@pytest.fixture
def table(tmp_path, photos, tiny_model):
    path = tmp_path / "study.toml"
    path.write_text(
        f'name = "small"\nmodels = ["{tiny_model}", "bicubic"]\nepsilons = [2, 8]\n'
        f'images = ["{photos}"]\nseeds = [0, 1]\n'
        '[[attacks]]\nkind = "ifgsm"\nsteps = 5\n[clever]\nsamples = 4\n'
    )
    return path


def run(*arguments):
    result = CliRunner().invoke(app, ["study", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def figures(records):
    return [record.figures() for record in records]


def test_a_plan_says_cells_time_and_memory_and_computes_nothing(table, tmp_path):
    result = run(table, "--out", tmp_path / "out", "--plan")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert re.fullmatch(
        r"small: 2 models x 1 attack x 2 budgets x 2 images x 2 seeds = 16 cells and 8 CLEVER indices, "
        r"about \d+ s on 1 worker, about \d+\.\d GiB each\.",
        said,
    ), said
    assert not (tmp_path / "out").exists() or not Store(tmp_path / "out").read()


def test_a_run_says_how_far_it_is_and_the_next_one_that_all_is_done(table, tmp_path):
    out = tmp_path / "out"
    first = run(table, "--out", out)
    assert first.exit_code == 0, first.stderr
    assert "24/24" in first.stderr
    assert re.search(
        r"worst so far: SR-PSNR \d+\.\d\d dB, (astronaut|coffee), (tiny|bicubic), ifgsm 8/255", first.stderr
    )
    again = run(table, "--out", out)
    assert "all done" in again.stdout
    assert {record.seed for record in Store(out).read()} == {0, 1}
    with (out / "records.jsonl").open("a") as file:
        file.write('{"key": "torn')
    torn = run(table, "--out", out, "--seed", "2")
    assert "1 torn line" in torn.stdout
    assert "8 CLEVER" not in torn.stdout
    assert "8 cells and 4 CLEVER" in torn.stdout


def test_what_could_not_be_computed_is_said_and_the_rest_is_kept(table, tmp_path, tiny_model):
    broken = tmp_path / "broken.safetensors"
    model = EDSR(scale=4, blocks=1, channels=4, upsampler="direct")
    for parameter in model.parameters():
        parameter.detach().mul_(1e20)  # finite, and nothing that comes out of it is
    save_model(model, broken, Card(name="broken", architecture=model.arguments(), scale=4))
    result = run(table, "--out", tmp_path / "out", "--model", tiny_model, "--model", broken)
    assert result.exit_code == 8, result.stderr
    assert "not computed:" in result.stderr
    assert len(Store(tmp_path / "out").of(AttackRecord)) == 8


def test_a_live_display_shows_the_worst(table, tmp_path, monkeypatch):
    screen = Console(force_terminal=True, width=160, record=True, file=io.StringIO())
    monkeypatch.setattr("resolute.terminal.errors", screen)
    study = read_study(table)
    with StudyDisplay() as live:
        run_study(study, tmp_path, progress=live.step, on_found=live.found)
        screen.print(live)
    shown = screen.export_text()
    assert "24/24" in shown
    assert "worst so far" in shown
    worst = min(Store(tmp_path).of(AttackRecord), key=lambda record: record.sr_psnr)
    assert f"{worst.sr_psnr:.2f} dB, {worst.image}, {worst.model}" in shown
    assert duration(125) == "2 min"


@pytest.mark.parametrize("terminal", [False, True])
def test_elsewhere_than_on_a_terminal_a_line_a_minute_says_what_is_left(terminal, monkeypatch):
    screen = Console(force_terminal=terminal, width=160, file=io.StringIO())
    monkeypatch.setattr("resolute.terminal.errors", screen)
    seconds = iter(range(10_000))
    monkeypatch.setattr("resolute.terminal.time", SimpleNamespace(monotonic=lambda: next(seconds) / 4))
    pace = Pace()
    for done in range(400):
        pace.tell(pace.words(done, 400))
    minutes = next(seconds) / 4 / 60
    lines = screen.file.getvalue().splitlines()
    assert len(lines) == (0 if terminal else 1 + int(minutes))
    assert minutes > 1
    assert all(line.endswith(" left") for line in lines)


@pytest.mark.parametrize("where", ["memory://bucket/small", "file"])
def test_results_go_wherever_fsspec_goes(where, table, tmp_path):
    url = where if "://" in where else f"file://{tmp_path / 'remote'}"
    one = run_study(read_study(table), tmp_path / "one")
    result = run(table, "--out", url)
    assert result.exit_code == 0, result.stderr
    assert f"report: {url}/report.html" in " ".join(result.stdout.split())
    files, root = fsspec.core.url_to_fs(url)
    names = {path.removeprefix(root).lstrip("/") for path in files.find(root)}
    assert {"study.json", "report.html"} <= names
    units = plan_of(read_study(table)).units((), 1)
    assert sum(name.startswith("records-") for name in names) == len(units)
    assert sum(name.startswith("attacked/") for name in names) == 16
    with at_place(url) as place:
        assert figures(Store(place.folder).read()) == figures(one)
    assert "all done" in run(table, "--out", url).stdout
    # What a run in between lost is done again, and nothing else.
    lost = sorted(path for path in files.find(root) if "records-" in path)[0]
    files.pipe_file(lost, files.cat_file(lost)[:50])
    assert re.search(r"\b[1-9]\d* to do", run(table, "--out", url).stdout)
    with at_place(url) as place:
        assert figures(Store(place.folder).read()) == figures(one)
    answer = CliRunner().invoke(app, ["query", "SELECT count(*) AS n FROM attacks", "--runs", url, "--format", "json"])
    assert json.loads(answer.stdout) == [{"n": 16}]


def test_a_place_that_cannot_be_reached_is_said(table, tmp_path):
    with pytest.raises(ConfigError, match="--out gopher://x"), at_place("gopher://x"):
        pass
    assert run(table, "--out", "s3://bucket/x").exit_code in (5, 7)
    (tmp_path / "file").write_text("in the way")
    with at_place(f"file://{tmp_path}/file/below") as place:
        (place.folder / "study.json").write_text("{}")
        with pytest.raises(OutputError, match="cannot reach"):
            place.push_all()


@pytest.mark.slow
def test_ctrl_c_ends_all_workers_and_says_how_to_go_on(table, tmp_path):
    table.write_text(table.read_text().replace("steps = 5", "steps = 400"))
    out = tmp_path / "out"
    process = Typed("study", table, "--out", out, "--workers", 2)
    deadline = time.monotonic() + 120
    while not (out / "records.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, stderr = process.ended(60)
    assert code == 130, stderr
    assert "Traceback" not in stderr
    assert "same command" in " ".join(stderr.split())
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(process.pid), "no worker is left behind"


def test_a_seed_that_no_record_holds_is_refused(tmp_path):
    found = run("demo", "--seed", 1, "--seed", 2**63, "--out", tmp_path / "out")
    assert (found.exit_code, "--seed is a whole number" in found.stderr) == (5, True)
    found = run("demo", "--budget", "far", "--out", tmp_path / "out")
    assert (found.exit_code, "--budget is a radius" in found.stderr) == (5, True)
    assert not (tmp_path / "out").exists()
