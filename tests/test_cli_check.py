import pytest
import torch
from typer.testing import CliRunner

from resolute.cli import app
from resolute.engine import Store
from resolute.images import sample_image, write_png
from resolute.studies.check import evidence_of
from resolute.studies.flags import RULES


def run(*arguments):
    """Run in this process; return exit code, stdout and stderr, each as one line of words."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    write_png(path, sample_image("coffee")[:, 100:112, 100:116])
    return path


def test_help_shows_a_working_example():
    code, stdout, _ = run("check", "--help")
    assert code == 0
    assert "resolute check" in stdout


def test_a_raised_flag_is_a_finding_and_no_error(photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    command = ("check", f"{tiny_model}+round8", "--images", photo, "--quick", "--steps", "4", "--out", out)
    code, stdout, _ = run(*command)
    assert code == 0
    assert stdout.index("zero-gradients") < stdout.index("output-saturates")
    (record,) = Store(out).read()
    assert (record.model, record.image, record.steps, record.flat) == ("tiny+round8", "photo", 4, 100.0)
    flags = evidence_of([record]).flags()
    assert {flag.name for flag in flags} == set(RULES)
    assert flags[0].name == "zero-gradients"
    facts = Store(out).facts()
    assert facts["kind"] == "check"
    assert facts["study"]["images"] == [str(photo)]
    assert facts["study"]["suite"]["steps"] == 4
    assert "zero-gradients" in (out / "report.html").read_text()
    assert run("report", out, "--out", out / "check.md")[0] == 0
    assert "| **zero-gradients** | yes | 100.00 |" in (out / "check.md").read_text()


def test_the_samples_are_there_by_default_and_a_twin_is_heard(tiny_model, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run("check", tiny_model, "--twin", "bicubic", "--quick", "--steps", "2", "--out", out)
    assert code == 0
    assert "twin" in stdout
    assert len(Store(out).read()) == 3
    assert all(list(record.transfers) == ["the twin"] for record in Store(out).read())


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (4, "no model named", ("nothing",)),
        (5, "the defences are mix=THETA", ("edsr-s+nothing",)),
        (5, "(0, 0.5]", ("edsr-s", "--epsilon", "153/255")),
        (5, "--epsilon is a radius", ("edsr-s", "--epsilon", "much")),
        (4, "no model named 'nobody'", ("edsr-s", "--twin", "nobody")),
        (3, "cannot find", ("edsr-s", "--images", "nowhere")),
    ],
)
def test_a_wrong_argument_is_one_line(code, said, arguments, tmp_path):
    found, _, stderr = run("check", *arguments, "--quick", "--out", tmp_path)
    assert found == code
    assert stderr.startswith("error: ")
    assert said in stderr


def test_an_image_too_small_is_refused(tmp_path):
    path = tmp_path / "dot.png"
    write_png(path, torch.rand(3, 20, 4))
    code, _, stderr = run("check", "edsr-s", "--images", path, "--out", tmp_path)
    assert code == 3
    assert "dot is too small: 4 x 20 pixels" in stderr


def test_defended_models_can_be_shown_and_attacked(photo, tiny_model, tmp_path):
    code, stdout, _ = run("models", f"{tiny_model}+mix=0.5")
    assert code == 0
    assert "tiny+mix=0.5" in stdout
    command = ("attack", f"{tiny_model}+mix=0.5", photo, "--steps", "2", "--out", tmp_path / "out")
    code, stdout, _ = run(*command)
    assert code == 0
    assert "tiny+mix=0.5" in stdout


def test_a_plan_says_what_it_costs_and_runs_nothing(photo, tiny_model, tmp_path):
    code, stdout, stderr = run("check", tiny_model, "--images", photo, "--quick", "--plan", "--out", tmp_path / "out")
    assert code == 0, stderr
    assert "1 cell, about" in stdout
    assert not (tmp_path / "out" / "records.jsonl").exists()
