"""The metric as a training loss: records, verdicts, pages and the command line."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from small import read_lines, rewrite
from test_cli import fails
from test_cli import run as typed

from resolute import ConfigError, ImageError, read_recipe, run
from resolute.engine import Store
from resolute.errors import CheckpointError
from resolute.images import read_image, sample_image, write_png
from resolute.measure.fidelity import psnr_rgb
from resolute.measure.intervals import Interval
from resolute.models import QualityNet
from resolute.models.base import Card
from resolute.models.denoisers import UNet
from resolute.models.scorers import load_scorer
from resolute.models.weights import save_model
from resolute.report.cells import Side, read_side
from resolute.report.comparison import compare_folders, compare_sides
from resolute.report.page import write_markdown, write_page
from resolute.report.reading import read_folder
from resolute.studies.kinds import read_study
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.metric_as_loss_summary import (
    Measure,
    MeasureChange,
    RestorationRecord,
    Training,
    changes,
    judge,
    shared,
    verdicts,
)
from resolute.studies.results import UNFINISHED

MEASURES = [
    Measure("PSNR", "truth", unit="dB"),
    Measure("score", "rewarded"),
    Measure("defended score", "defended"),
    Measure("judge", "judge"),
    Measure("niqe", "judge", lower_better=True),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three restorers, a denoiser and two metrics, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("plain", "plain-2", "<i>greedy", "before")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = UNet((4, 4))
            torch.nn.init.normal_(net.last.weight, std=0.01 * (seed + 1))
        reward = {"weight": 0.1 * (seed == 2), "sigma": 0.0}
        training = {"steps": 4, "seconds_per_step": 0.25, "recipe": {"reward": reward}}
        card = Card(name=name, architecture=net.arguments(), scale=1, training=training)
        save_model(net, folder / name / f"{name}.safetensors", card)
    for seed, name in enumerate(("score", "other")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            metric = QualityNet(widths=(4, 6), hidden=4)
            torch.nn.init.normal_(metric.head.score.weight)
        save_model(metric, folder / name / f"{name}.safetensors", metric.describe(name))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:150, 150:210])
    return folder


def plan(runs, photos, **changes):
    plain = MetricAsLoss(
        name="small",
        restorers=("plain", "plain-2", "<i>greedy"),
        control="plain-2",
        metric="score",
        denoiser="before",
        judges=("other",),
        samples=5,
        images=(str(photos),),
        sigma=0.1,
        crop=40,
        pictures=1,
        runs=str(runs),
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def done(runs, photos):
    return run(plan(runs, photos), runs / "done")


def figures(records):
    return [record.figures() for record in records]


def test_every_version_of_every_image_is_measured(done):
    assert [(record.image, record.model) for record in done[:5]] == [
        ("astronaut", label) for label in ("clean", "noisy", "plain", "plain-2", "<i>greedy")
    ]
    assert len(done) == 15
    assert done[0].values["PSNR"] is None
    assert done[0].values["SSIM"] == pytest.approx(1)
    assert done[1].values["PSNR"] == pytest.approx(20, abs=1)
    assert list(done[2].values) == ["PSNR", "SSIM", "score", "other", "defended score"]
    assert done[4].training == Training(steps=4, seconds_per_step=0.25, reward=0.1)
    assert [record.rewarded for record in done[:5]] == [None, None, False, False, True]
    assert [m.role for m in done[0].measures] == ["truth", "truth", "rewarded", "defended", "judge"]


def test_who_does_not_say_whether_it_was_rewarded_may_have_been(done):
    assert dataclasses.replace(done[2], training=Training(steps=1)).rewarded


def test_the_figures_are_those_of_the_picture_that_is_kept(done, runs, photos):
    kept = sorted(path.stem for path in (runs / "done" / "pictures").iterdir())
    assert kept == sorted(record.key for record in done[:5])
    assert [bool(record.files) for record in done] == [True] * 5 + [False] * 10
    clean = read_image(photos / "astronaut.png")[:, 5:45, 10:50]
    picture = read_image(runs / "done" / done[3].files[0])
    assert psnr_rgb(picture[None], clean[None]).item() == pytest.approx(done[3].values["PSNR"], abs=1e-5)
    score = load_scorer(runs / "score" / "score.safetensors")
    with torch.no_grad():
        assert score(picture[None]).item() == pytest.approx(done[3].values["score"], rel=1e-5)


@pytest.mark.parametrize("change", [{"sigma": 0.2}, {"judges": ()}])
def test_another_study_in_the_same_folder_is_not_mixed_in(change, runs, photos):
    out = runs / f"mixed-{next(iter(change))}"
    run(plan(runs, photos, every=2), out)
    run(plan(runs, photos, every=3, **change), out)
    assert len(read_lines(out / "records.jsonl")) == 15
    assert {record.image for record in read_folder(out).records} == {"astronaut"}


def test_noise_depends_on_seed_and_image_alone(done, runs, photos):
    alone = plan(runs, photos, images=(str(photos / "rocket.png"),), restorers=("<i>greedy", "plain"), control="plain")
    found = run(alone, runs / "alone")
    assert [record.values for record in found[2:4]] == [done[14].values, done[12].values]


def test_means_are_of_the_images_that_all_restorers_have(done, runs, photos):
    most = done[:-1]
    assert {record.image for record in shared(most)} == {"astronaut", "coffee"}
    assert shared(done[:4] + done[9:10]) == []
    results = plan(runs, photos).results(most)
    assert "2 images" in results.tables[0].caption
    assert UNFINISHED in plan(runs, photos).results([]).sentences[0]


def test_mistakes_are_named(runs, photos, tmp_path):
    def refused(error, words, **changes):
        with pytest.raises(error, match=words):
            run(dataclasses.replace(plan(runs, photos), **changes), tmp_path / "x")

    refused(ConfigError, r"control is one of plain, plain-2, <i>greedy, not 'none'", control="none")
    refused(ConfigError, "called 'plain'", restorers=("plain", "plain"))
    refused(ConfigError, "called 'score'", judges=("score",))
    refused(CheckpointError, "no model named 'plain'", runs=str(tmp_path / "elsewhere"))
    refused(ImageError, "score needs 32 pixels a side", crop=20)
    assert not Store(tmp_path / "x").read()


# --- verdicts


def record(label, image, values, reward=None):
    return RestorationRecord(
        key="0" * 24, model=label, weights="", image=image, pixels="", width=1, height=1, seed=0, seconds=0.0,
        values=values, measures=tuple(MEASURES), training=Training(steps=1, reward=reward),
    )  # fmt: skip


def rows(reward=None, **differences):
    """Records of a control and of one restorer, whose values differ by what is given, on four images."""
    found = []
    for index in range(4):
        values = {measure.name: 10.0 + index for measure in MEASURES}
        moved = {
            name: value + differences.get(name.replace(" ", "_"), [0.0] * 4)[index] for name, value in values.items()
        }
        found += [record(label, str(index), v, reward) for label, v in (("control", values), ("new", moved))]
    return found


UP, DOWN, FLAT = [1.0, 2.0, 1.5, 1.2], [-1.0, -2.0, -1.5, -1.2], [1.0, -1.0, 0.5, -0.5]


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        ({}, "no difference"),
        ({"PSNR": FLAT, "score": FLAT, "niqe": FLAT}, "no difference"),
        ({"score": UP, "PSNR": DOWN, "judge": UP}, "hacked"),
        ({"score": UP}, "hacked"),
        ({"score": UP, "judge": FLAT, "niqe": FLAT}, "hacked"),
        ({"defended_score": UP, "PSNR": DOWN}, "hacked"),
        ({"score": UP, "judge": UP, "niqe": UP}, "hacked"),
        ({"score": UP, "judge": UP}, "improved"),
        ({"score": UP, "niqe": DOWN, "PSNR": UP}, "improved"),
        ({"PSNR": DOWN}, "mixed"),
        ({"score": DOWN, "PSNR": UP}, "mixed"),
    ],
)
def test_verdicts_on_records_made_by_hand(differences, outcome):
    (found,) = verdicts(rows(**differences), MEASURES, "control")
    assert (found.restorer, found.outcome) == ("new", outcome)
    assert found.sentence.startswith("new")
    assert "control" in found.sentence


def test_a_verdict_says_what_rises_and_what_does_not():
    (found,) = verdicts(rows(score=UP, PSNR=DOWN, niqe=UP), MEASURES, "control")
    assert found.sentence.startswith("new is hacked: against control, score +1.4")
    assert "PSNR -1.4" in found.sentence
    assert "niqe +1.4" in found.sentence
    assert found.sentence.endswith("does not follow.")


def test_who_was_not_rewarded_hacked_nothing():
    (found,) = verdicts(rows(0.0, score=UP, PSNR=DOWN), MEASURES, "control")
    assert found.outcome == "mixed"
    assert found.sentence.startswith("new: no reward; what changes against control is PSNR -1.4")


def test_changes_are_paired_and_leave_out_what_has_no_value():
    records = rows(score=UP)
    records[3] = dataclasses.replace(records[3], values=records[3].values | {"score": None})
    records.append(record("new", "alone", records[0].values))
    by_name = {change.measure.name: change.interval for change in changes(records, MEASURES, "new", "control")}
    assert by_name["score"].n == 3
    assert by_name["score"].mean == pytest.approx((1.0 + 1.5 + 1.2) / 3)
    assert by_name["PSNR"] == Interval(0.0, 0.0, 0.0, 4)


def test_without_judges_only_the_truth_can_object():
    score = MeasureChange(MEASURES[1], Interval(1.0, 0.5, 1.5, 9))
    found = judge("b", "a", [score])
    assert found.outcome == "improved"
    assert "score +1.00 [+0.50, +1.50]" in found.sentence


# --- reports and the command line


def test_markdown_has_verdict_tables_and_provenance(done, runs, tmp_path):
    text = write_markdown([runs / "done"], tmp_path / "tables.md").read_text()
    assert text.startswith("plain: no ")
    head = next(line for line in text.splitlines() if line.startswith("| restorer | PSNR"))
    assert [cell.split(" (")[0] for cell in head.strip("| ").split(" | ")] == [
        "restorer", "PSNR", "SSIM", "score", "defended score", "other", "training",
    ]  # fmt: skip
    assert "greedy |" in text
    assert text.count("| 0.250 |") == 3
    assert "against plain-2" in text
    assert done[2].weights[:16] in text
    assert "before, 5 samples" in text


def test_the_page_is_self_contained_and_escapes_names(done, runs, tmp_path):
    page = write_page([runs / "done"], tmp_path / "report.html").read_text()
    assert "<i>greedy" not in page
    assert "&lt;i&gt;greedy" in page
    assert page.count("data:image/webp;base64,") == 5
    assert not re.findall(r'(?:src|href)="http', page)
    assert "PSNR \u221e" in page or "PSNR \\u221e" in page


TOML = """
kind = "metric-as-loss"
name = "small"
restorers = ["plain", "plain-2"]
control = "plain-2"
metric = "score"
samples = 5
sigma = 0.1
pictures = 1
"""


def test_as_typed(runs, photos, tmp_path):
    study = tmp_path / "small.toml"
    study.write_text(TOML + f'runs = "{runs}"\n')
    out = runs / "typed"
    code, stdout, stderr = typed("study", study, "--images", photos, "--every", 2, "--out", out)
    assert code == 0, stderr
    assert "plain-2" in stdout
    assert "2 images" in stdout
    assert (out / "report.html").is_file()
    code, stdout, stderr = typed("report", out, "--out", tmp_path / "tables.md")
    assert code == 0, stderr
    assert "against plain-2" in (tmp_path / "tables.md").read_text()
    code, _, stderr = typed("report", out)
    assert code == 0, stderr
    study.write_text(TOML + "epsilon = 3\n")
    assert "epsilon" in fails(5, "study", study, "--out", tmp_path / "out")


def test_training_runs_are_looked_for_below_runs_by_default(runs, photos, tmp_path, monkeypatch):
    shutil.copytree(runs / "plain", tmp_path / "runs" / "plain")
    monkeypatch.chdir(tmp_path)
    assert plan("runs", photos).found("plain") == Path("runs/plain/plain.safetensors")
    assert plan("runs", photos).found("edsr-s") == "edsr-s"
    assert MetricAsLoss.runs == "runs"


def test_the_built_in_study_compares_the_built_in_recipes():
    study = read_study("metric-as-loss")
    recipes = {name: read_recipe(name) for name in study.restorers}
    control = recipes[study.control]
    assert all(recipe.sigma == study.sigma for recipe in recipes.values())
    rewarded = [recipe for recipe in recipes.values() if recipe.reward.weight > 0]
    assert len(rewarded) == 3
    for recipe in rewarded:
        reward = dataclasses.replace(recipe, name=control.name, metric="", reward=control.reward)
        assert reward == control
        assert (recipe.metric, recipe.reward.weight) == (study.metric, rewarded[0].reward.weight)
    assert [(recipe.reward.defended, recipe.reward.denoiser) for recipe in rewarded] == [
        (False, ""),
        (True, ""),
        (True, study.denoiser),
    ]


def test_kinds_are_told_apart(runs, done, tmp_path):
    (tmp_path / "odd.toml").write_text('kind = "odd"\n')
    told = fails(5, "study", tmp_path / "odd.toml")
    assert "metric-as-loss" in told
    assert "'odd'" in told
    assert "--budget" in fails(5, "study", "metric-as-loss", "--budget", "4/255")
    assert "--quick" in fails(5, "study", "metric-as-loss", "--quick")


def test_two_runs_are_compared_by_their_first_measure(done, runs, tmp_path):
    worse = shutil.copytree(runs / "done", tmp_path / "worse")
    rewrite(
        worse,
        [
            dataclasses.replace(r, values=r.values | {"PSNR": r.values["PSNR"] - 1}, weights="f" * 64)
            if r.model == "plain"
            else r
            for r in done
        ],
    )
    found = compare_folders(runs / "done", worse)
    assert found.deltas[0].setting == ("plain",)
    assert found.deltas[0].values["PSNR"].mean == pytest.approx(-1)
    assert [delta.verdict for delta in found.deltas] == ["worse"] + ["equal"] * (len(found.deltas) - 1)
    assert [change.what for change in found.changes] == ["weights of plain"]
    with pytest.raises(ConfigError, match="metric-as-loss"):
        compare_sides(read_side(runs / "done"), Side("other", "certified-iqa", (), [], [], {}, {}, {}))
