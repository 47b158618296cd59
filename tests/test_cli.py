"""The command line as a person types it."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from odd import FULL
from PIL import Image
from typer.testing import CliRunner
from warm import Typed

import resolute
from resolute.cli import app
from resolute.cli.app import COMMANDS, QUESTIONS, with_commands
from resolute.images import read_image, sample_image, write_png


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    write_png(path, sample_image("coffee")[:, 100:124, 100:132])
    return path


def run(*arguments):
    """Run in this process; return exit code, stdout and stderr, each as one line of words."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


def fails(code, *arguments):
    exit_code, _, stderr = run(*arguments)
    assert exit_code == code, stderr
    assert stderr.startswith("error: ")
    assert "Traceback" not in stderr
    return stderr


def screen(*words):
    """Return what is printed at 100 columns."""
    return CliRunner().invoke(app, words, terminal_width=100, env={"COLUMNS": "100"}).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_shows_an_example_and_counts_the_rest(command):
    shown, whole = screen(command, "--help"), screen(command, "--help-all")
    assert len(shown.splitlines()) <= 45
    assert f"Example:  resolute {command}" in shown
    assert "docs/" not in whole, "who installed it by pip has none"
    listed, all_listed = ({*re.findall(r"^│[ *]*(--[a-z-]+)", text, re.MULTILINE)} for text in (shown, whole))
    hidden = len(all_listed - listed)
    assert (f"{hidden} more options:" in shown) == (hidden > 0)
    assert not {"--device", "--fail-under"} & listed


def test_the_list_of_commands_fits_a_screen():
    shown = screen("--help")
    assert len(shown.splitlines()) <= 45
    assert all(f"│ {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize(
    ("command", "named"),
    [("attacks", "apgd"), ("metrics", "quality-m"), ("recipes", "edsr-s-entropy"), ("studies", "lambda")],
)
def test_lists_are_short_and_can_be_read_by_programs(command, named):
    code, stdout, _ = run(command)
    assert code == 0
    assert named in stdout
    table = json.loads(CliRunner().invoke(app, [command, "--json"]).stdout)
    assert named in [row["name"] for row in table["rows"]]
    assert [column["name"] for column in table["columns"]] == list(table["rows"][0])


def test_shells_can_complete_commands_and_options():
    typed = {"_RESOLUTE_COMPLETE": "complete_bash", "COMP_WORDS": "resolute certify --adap", "COMP_CWORD": "2"}
    assert CliRunner().invoke(app, [], prog_name="resolute", env=typed).stdout.split() == ["--adaptive"]


def test_help_shows_an_extra_in_brackets():
    assert "'resolute[demo]'" in run("serve", "--help")[1]


def test_the_list_of_commands_says_what_their_help_says():
    helps = {
        name: " ".join(command.help.split("\n\n")[0].split()) for name, command in with_commands().commands.items()
    }
    assert helps == {name: summary for name, (_, summary) in COMMANDS.items()}


@pytest.mark.parametrize("argument", ["--help", "--version", "models", "metrics"])
def test_what_asks_for_nothing_does_not_wait_for_torch(argument):
    code = f"""
import sys
from resolute.cli import main
sys.argv = ["resolute", {argument!r}]
try:
    main()
finally:
    assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = {"--help": "harden", "--version": resolute.__version__, "models": "edsr-s", "metrics": "quality-s"}
    assert answers[argument] in done.stdout


def test_a_mistyped_command_is_told_the_right_one():
    code, _, stderr = run("atack", "edsr-s")
    assert code == 2
    assert "attack" in stderr


def test_no_command_teaches():
    code, stdout, _ = run()
    assert code == 0
    assert all(command in stdout for command in COMMANDS)
    asked = [command.split()[0].rstrip(";") for person in QUESTIONS.values() for command in person.values()]
    assert set(asked) <= COMMANDS.keys()


def test_a_wrong_option_is_a_usage_error(photo):
    assert run("attack", "edsr-s", photo, "--epsilom", "4/255")[0] == 2


def test_attack_writes_images_outputs_and_figures(photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run(
        "attack", tiny_model, photo, "--attack", "ifgsm", "--epsilon", "4/255", "--steps", "3", "--out", out
    )
    assert code == 0
    assert "I-FGSM" in stdout
    clean, attacked = read_image(photo), read_image(out / "photo.attacked.png")
    assert 0 < (clean - attacked).abs().max() <= 4.001 / 255
    assert read_image(out / "photo.sr-clean.png").shape == read_image(out / "photo.sr-attacked.png").shape
    [figures] = json.loads((out / "figures.json").read_text())
    expected = -10 * torch.log10((clean - attacked).double().square().mean()).item()
    assert figures["lr_psnr"] == pytest.approx(expected)
    assert figures["files"]["attacked"] == "photo.attacked.png"
    assert figures["clean_psnr_y"] is None


def test_attacks_into_one_folder_add_up(photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    arguments = ("attack", tiny_model, photo, "--steps", "2", "--out", out)
    assert run(*arguments)[0] == 0
    before = (out / "photo.sr-clean.png").read_bytes()
    for _ in range(2):
        assert run("attack", "bicubic", photo, "--scale", "2", "--steps", "2", "--out", out)[0] == 0
    assert run(*arguments)[0] == run(*arguments, "--epsilon", "8/255")[0] == 0
    assert (out / "photo.sr-clean.png").read_bytes() == before
    figures = json.loads((out / "figures.json").read_text())
    names = [figure["files"]["sr-clean"] for figure in figures]
    name = figures[1]["model"]
    assert names == ["photo.bicubic.sr-clean.png", "photo.sr-clean.png", f"photo.{name}.sr-clean.png"]
    assert all((out / name).is_file() for name in names)


def test_attack_against_the_ground_truth(photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    assert run("attack", tiny_model, photo, "--steps", "2", "--ground-truth", "--out", out)[0] == 0
    [figures] = json.loads((out / "figures.json").read_text())
    assert (figures["width"], figures["height"]) == (8, 6)
    assert figures["clean_psnr_y"] is not None


@pytest.mark.parametrize("options", [("--attack", "fda"), ("--attack", "pgd", "--restarts", "2"), ("--attack", "fgsm")])
def test_every_attack_runs_by_name(options, photo, tiny_model, tmp_path):
    steps = () if "fgsm" in options else ("--steps", "2")
    assert run("attack", tiny_model, photo, *options, *steps, "--out", tmp_path / "out")[0] == 0


def test_a_feature_attack_on_a_named_layer(photo, tiny_model, tmp_path):
    arguments = ("attack", tiny_model, photo, "--attack", "fda", "--steps", "2", "--out", tmp_path / "out")
    assert run(*arguments, "--layer", "head")[0] == 0
    assert "'neck'" in fails(5, *arguments, "--layer", "neck")


def test_options_that_do_not_exist_and_budgets_of_nothing_are_refused(photo, tiny_model, tmp_path):
    arguments = ("attack", tiny_model, photo, "--out", tmp_path / "out")
    assert "queries" in fails(5, *arguments, "--attack", "square", "--option", "querys=5")
    assert "share" in fails(5, *arguments, "--attack", "square", "--option", "share=2")
    assert "1/255 or more" in fails(5, *arguments, "--epsilon", "0.003")


def test_the_same_command_goes_on_instead_of_starting_over(photo, tiny_model, tmp_path):
    arguments = ("attack", tiny_model, photo, "--steps", "2", "--out", tmp_path / "out")
    run(*arguments)
    records = (tmp_path / "out" / "records.jsonl").read_text()
    run(*arguments)
    assert (tmp_path / "out" / "records.jsonl").read_text() == records


def test_a_seed_changes_the_start_and_nothing_else_does(photo, tiny_model, tmp_path):
    def attacked(name, *options):
        run("attack", tiny_model, photo, "--attack", "pgd", "--steps", "1", "--out", tmp_path / name, *options)
        return read_image(tmp_path / name / "photo.attacked.png")

    assert torch.equal(attacked("a"), attacked("b"))
    assert not torch.equal(attacked("a"), attacked("c", "--seed", "1"))


@pytest.mark.parametrize(
    ("epsilon", "message"), [("0", "such as 4/255"), ("5", "such as 4/255"), ("four", "not 'four'"), ("4/0", "4/0")]
)
def test_a_wrong_budget_is_explained(epsilon, message, photo, tiny_model):
    assert message in fails(5, "attack", tiny_model, photo, "--epsilon", epsilon)


def test_unknown_names_list_the_known_ones(photo, tiny_model, tmp_path):
    assert "edsr-xs" in fails(4, "attack", "edsr-xl", photo)
    assert "ifgsm" in fails(5, "attack", tiny_model, photo, "--attack", "deepfool")
    assert "demo" in fails(5, "study", "no-such-study")
    assert "edsr-s-entropy" in fails(5, "train", "no-such-recipe", "--data", tmp_path)
    assert "objective" in fails(5, "attack", tiny_model, photo, "--objective", "loudness")
    assert "precision" in fails(5, "attack", tiny_model, photo, "--precision", "int4")
    assert "--device cpu" in fails(5, "attack", tiny_model, photo, "--device", "tpu")


def test_bad_images_are_named(tiny_model, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image" in fails(3, "attack", tiny_model, empty)
    text = tmp_path / "text.png"
    text.write_text("not an image")
    assert "text.png" in fails(3, "attack", tiny_model, text)
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(whole.read_bytes()[:-600])
    assert "torn.jpg" in fails(3, "attack", tiny_model, torn)
    assert "missing.png" in fails(3, "attack", tiny_model, tmp_path / "missing.png")
    one = tmp_path / "one.png"
    write_png(one, torch.zeros(3, 1, 1))
    assert "scale 4" in fails(3, "attack", tiny_model, one, "--ground-truth")


def test_a_single_pixel_can_be_attacked(tiny_model, tmp_path):
    write_png(tmp_path / "one.png", torch.full((3, 1, 1), 0.5))
    out = tmp_path / "out"
    assert run("attack", tiny_model, tmp_path / "one.png", "--steps", "2", "--out", out)[0] == 0
    assert read_image(out / "one.sr-attacked.png").shape == (3, 4, 4)


def test_bad_checkpoints_are_named(photo, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    hostile = tmp_path / "hostile.pth"
    torch.save({"weight": Payload()}, hostile)
    assert "hostile.pth" in fails(4, "attack", hostile, photo)
    assert not (tmp_path / "executed").exists()
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04")
    assert "torn.pt" in fails(4, "models", tmp_path / "torn.pt")
    torch.save({"surplus": torch.zeros(3)}, tmp_path / "other.pt")
    assert "other.pt" in fails(4, "models", tmp_path / "other.pt")


def test_models_lists_and_describes(tiny_model):
    code, stdout, _ = run("models")
    assert code == 0
    assert "edsr-s-entropy" in stdout
    code, stdout, _ = run("models", tiny_model)
    assert code == 0
    # Of what its card does not say there is no row.
    assert "training" not in stdout
    assert "long_skip" in stdout
    assert re.search(r"[0-9a-f]{64}", stdout)


def test_models_shows_no_fact_that_is_empty():
    stdout = " ".join(run("models", "edsr-xs")[1].replace("\u2502", " ").split())
    assert "steps 12000" in stdout
    assert "started_from" not in stdout


def test_attacking_bicubic_counts_each_image_once(photo, tmp_path):
    code, stdout, stderr = run("attack", "bicubic", photo, "--steps", "2", "--out", tmp_path)
    assert code == 0
    assert "over one image" in " ".join(stdout.split())
    assert "1/1" in stderr


def test_report_of_a_folder_without_records(tmp_path):
    assert "no records" in fails(5, "report", tmp_path)


def test_report_as_page_and_as_markdown(photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    run("attack", tiny_model, photo, "--steps", "2", "--out", out)
    assert run("report", out)[0] == 0
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert run("report", out, "--out", tmp_path / "table.md")[0] == 0
    table = (tmp_path / "table.md").read_text()
    assert "| tiny | I-FGSM | 4/255 |" in table
    assert "| bicubic | I-FGSM | 4/255 |" in table
    assert "it was made" in table


def test_an_unwritable_place_is_named(photo, tiny_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "is a file" in fails(7, "attack", tiny_model, photo, "--out", tmp_path / "file" / "out")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["attack", "train", "study"])
def test_a_full_disk_leaves_nothing_half_written(command, photo, tiny_model, tmp_path):
    out = tmp_path / "out"
    study = tmp_path / "study.toml"
    study.write_text(
        f'name = "s"\nmodels = ["{tiny_model}"]\nepsilons = [4]\nimages = ["{photo}"]\n'
        '[[attacks]]\nkind = "ifgsm"\nsteps = 2\n'
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "r"\n[model]\nblocks = 1\nchannels = 4\nscale = 2\n[data]\npatch = 8\nvalidation = 0\n'
        "[optimizer]\nsteps = 2\n"
    )
    arguments = {
        "attack": ("attack", tiny_model, photo, "--steps", "2"),
        "study": ("study", study),
        "train": ("train", recipe, "--data", tmp_path),
    }[command]
    # No file may grow beyond 500 bytes: the nearest thing to a full disk that needs no mount.
    typed = Typed(*arguments, "--out", out, "--device", "cpu", limit=(resource.RLIMIT_FSIZE, (500, 500)))
    code, stderr = typed.ended(120)
    assert code == 7, stderr
    assert "Traceback" not in stderr
    assert "cannot write" in stderr
    assert not [file for file in out.rglob("*") if file.suffix in (".png", ".safetensors", ".pt") and file.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("command", [*(["demo"] if FULL else []), "attack", "study", "train"])
def test_ctrl_c_keeps_what_is_done(command, tiny_model, tmp_path):
    photos = tmp_path / "photos"
    write_png(photos / "a.png", sample_image("coffee")[:, :96, :96])
    study = tmp_path / "study.toml"
    study.write_text(
        f'name = "s"\nmodels = ["{tiny_model}"]\nepsilons = [1, 2, 4]\nimages = ["{photos}"]\n'
        '[[attacks]]\nkind = "ifgsm"\nsteps = 300\n'
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "r"\ncheckpoint_every = 5\n[model]\nblocks = 1\nchannels = 4\nscale = 2\n'
        "[data]\npatch = 8\nvalidation = 0\n[optimizer]\nsteps = 100000\n"
    )
    out = tmp_path / "out"
    arguments, sign = {
        "demo": (("demo",), "records.jsonl"),
        "attack": (("attack", tiny_model, photos, "--steps", "100000"), "study.json"),
        "study": (("study", study), "records.jsonl"),
        "train": (("train", recipe, "--data", photos), "checkpoint.pt"),
    }[command]
    process = Typed(*arguments, "--out", out, "--device", "cpu")
    deadline = time.monotonic() + 120
    while not (out / sign).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    told = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, stderr = process.ended(60)
    assert code == 130, stderr
    assert time.monotonic() - told < 5
    assert "same command" in " ".join(stderr.split())
    assert "Traceback" not in stderr
    assert (out / sign).exists()
    assert not [file for file in out.rglob(".*") if file.is_file()]


@pytest.mark.parametrize(
    "command",
    [
        ("survive", "nothing.pth"), ("twin", "nothing.pth", "int8"), ("faithful", "nothing.pth", "photo.png"),
        ("harden", "nothing.pth", "--data", "photos"), ("check", "nothing.pth"), ("audit", "nothing"),
        ("study", "demo", "--model", "nothing.pth"),
    ],
)  # fmt: skip
def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_loaded(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "is a file" in fails(7, *command, "--out", out)
    assert (tmp_path / "file").read_text() == "mine"
    if command[0] in ("survive", "faithful", "study"):
        assert "empty" in fails(5, *command, "--out", "")
