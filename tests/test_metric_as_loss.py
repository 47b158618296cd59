"""The metric as a training loss: records, verdicts, pages and the command line."""

import dataclasses
import json
import shutil

import pytest
import torch
from resolute.report.metric_as_loss import Finding, restorers_markdown, restorers_page
from resolute.studies.store import read_lines
from test_cli import fails, run

from resolute import ConfigError, ImageError
from resolute.errors import CheckpointError
from resolute.images import sample_image, write_png
from resolute.measure.intervals import Interval
from resolute.models import QualityNet
from resolute.models.base import Card
from resolute.models.denoisers import UNet
from resolute.models.scorers import load_scorer
from resolute.models.weights import save_model
from resolute.report.cells import Side, read_side
from resolute.report.comparison import compare_folders, compare_sides
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.metric_as_loss_summary import Change, Measure, changes, judge, verdicts

MEASURES = [
    Measure("PSNR", "truth", unit="dB"),
    Measure("score", "rewarded"),
    Measure("defended score", "defended"),
    Measure("judge", "judge"),
    Measure("niqe", "judge", lower_better=True),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three restorers, a denoiser and two metrics, where a study finds them: beside its results."""
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


def plan(photos, **changes):
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
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def done(runs, photos):
    return plan(photos).run(runs / "done")


def test_every_version_of_every_image_is_measured(done, runs):
    assert [(row["image"], row["restorer"]) for row in done[:5]] == [
        ("astronaut", label) for label in ("clean", "noisy", "plain", "plain-2", "<i>greedy")
    ]
    assert len(done) == 15
    assert done[0]["values"]["PSNR"] is None
    assert done[0]["values"]["SSIM"] == pytest.approx(1)
    assert done[1]["values"]["PSNR"] == pytest.approx(20, abs=1)
    assert list(done[2]["values"]) == ["PSNR", "SSIM", "score", "other", "defended score"]
    assert done[4]["training"] == {
        "steps": 4,
        "seconds_per_step": 0.25,
        "reward": {"weight": 0.1, "sigma": 0.0},
    }
    facts = json.loads((runs / "done" / "study.json").read_text())
    assert [measure["role"] for measure in facts["measures"]] == ["truth", "truth", "rewarded", "defended", "judge"]


def test_the_figures_are_those_of_the_picture_that_is_kept(done, runs, photos):
    kept = sorted(path.stem for path in (runs / "done" / "pictures").iterdir())
    assert kept == sorted(row["key"] for row in done[:5])
    from resolute.images import read_image
    from resolute.measure.fidelity import psnr_rgb

    clean = read_image(photos / "astronaut.png")[:, 5:45, 10:50]
    picture = read_image(runs / "done" / "pictures" / f"{done[3]['key']}.png")
    assert psnr_rgb(picture[None], clean[None]).item() == pytest.approx(done[3]["values"]["PSNR"], abs=1e-5)
    score = load_scorer(runs / "score" / "score.safetensors")
    with torch.no_grad():
        assert score(picture[None]).item() == pytest.approx(done[3]["values"]["score"], rel=1e-5)


def test_a_torn_run_goes_on_and_ends_the_same(done, runs, photos):
    out = runs / "torn"
    plan(photos, every=2).run(out)
    path = out / "records.jsonl"
    path.write_text(path.read_text()[:-30])
    next((out / "pictures").iterdir()).unlink()
    assert plan(photos).run(out) == done
    assert len(read_lines(path)) == 15
    assert len(list((out / "pictures").iterdir())) == 5
    before = path.read_bytes()
    plan(photos).run(out)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"sigma": 0.2}, {"seed": 1}, {"samples": 6}, {"denoiser": ""}, {"judges": ()}])
def test_another_study_in_the_same_folder_is_not_mixed_in(change, runs, photos):
    out = runs / f"mixed-{next(iter(change))}"
    plan(photos, every=2).run(out)
    plan(photos, every=3, **change).run(out)
    assert len(read_lines(out / "records.jsonl")) == 15
    assert Finding.read(out).images == ["astronaut"]


def test_noise_depends_on_seed_and_image_alone(done, runs, photos):
    alone = plan(photos, images=(str(photos / "rocket.png"),), restorers=("<i>greedy", "plain"), control="plain")
    rows = alone.run(runs / "alone")
    assert [row["values"] for row in rows[2:4]] == [done[14]["values"], done[12]["values"]]


def test_mistakes_are_named(runs, photos, tmp_path):
    with pytest.raises(ConfigError, match=r"control is one of plain, plain-2, <i>greedy, not 'none'"):
        plan(photos, control="none").run(runs / "x")
    with pytest.raises(ConfigError, match="two of its pictures are called 'plain'"):
        plan(photos, restorers=("plain", "plain")).run(runs / "x")
    with pytest.raises(ConfigError, match="two of its metrics are called 'score'"):
        plan(photos, judges=("score",)).run(runs / "x")
    with pytest.raises(CheckpointError, match="no model named 'plain'"):
        plan(photos).run(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="score needs 32 pixels a side"):
        plan(photos, crop=20).run(runs / "x")
    with pytest.raises(ConfigError, match="holds no results of the kind metric-as-loss"):
        Finding.read(tmp_path)


# --- verdicts


def rows(**differences):
    """Records of a control and of one restorer, whose values differ by what is given, on four images."""
    base = {measure.name: 10.0 for measure in MEASURES}
    records = []
    for index in range(4):
        values = {name: value + index for name, value in base.items()}
        moved = {
            name: value + differences.get(name.replace(" ", "_"), [0.0] * 4)[index] for name, value in values.items()
        }
        records += [
            {"restorer": label, "image": str(index), "values": content, "training": {"steps": 1}}
            for label, content in (("control", values), ("new", moved))
        ]
    return records


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
    assert "rises while PSNR -1.4" in found.sentence
    assert "falls and niqe +1.4" in found.sentence
    assert found.sentence.endswith("does not follow.")


def test_who_was_not_rewarded_hacked_nothing():
    records = rows(score=UP, PSNR=DOWN)
    for row in records:
        row["training"] = {"reward": {"weight": 0.0}}
    (found,) = verdicts(records, MEASURES, "control")
    assert found.outcome == "mixed"
    assert found.sentence.startswith("new: no reward; what changes against control is PSNR -1.4")


def test_changes_are_paired_and_leave_out_what_has_no_value():
    records = rows(score=UP)
    records[3]["values"]["score"] = None
    records.append({"restorer": "new", "image": "alone", "values": records[0]["values"], "training": {}})
    by_name = {change.measure.name: change.interval for change in changes(records, MEASURES, "new", "control")}
    assert by_name["score"].n == 3
    assert by_name["score"].mean == pytest.approx((1.0 + 1.5 + 1.2) / 3)
    assert by_name["PSNR"] == Interval(0.0, 0.0, 0.0, 4)


def test_without_judges_only_the_truth_can_object():
    score = Change(MEASURES[1], Interval(1.0, 0.5, 1.5, 9))
    assert (
        judge("b", "a", [score]).sentence
        == "b is improved: against a, score +1.00 [+0.50, +1.50] rises, and nothing falls."
    )


# --- reports and the command line


def test_markdown_has_verdict_tables_and_provenance(done, runs, tmp_path):
    text = restorers_markdown([runs / "done"], tmp_path / "tables.md").read_text()
    assert text.startswith("plain: no ")
    assert "| restorer | PSNR (dB) | SSIM | score | defended score | other | seconds a training step |" in text
    assert "| <i>greedy |" in text
    assert text.count("| 0.250 |") == 3
    assert "Change against plain-2" in text
    assert done[2]["weights"][:16] in text
    assert "behind before, 5 samples" in text


def test_the_page_is_self_contained_and_escapes_names(done, runs, tmp_path):
    page = restorers_page([runs / "done"], tmp_path / "report.html").read_text()
    assert "<i>greedy" not in page
    assert "&lt;i&gt;greedy" in page
    assert page.count('<img src="data:image/webp;base64,') == 5
    assert "http" not in page.replace("http-equiv", "")
    assert "PSNR ∞" in page


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
    study.write_text(TOML)
    out = runs / "typed"
    code, stdout, stderr = run("study", study, "--images", photos, "--every", 2, "--out", out)
    assert code == 0, stderr
    assert "plain-2" in stdout
    assert "Means over 2 images" in stdout
    assert (out / "report.html").is_file()
    code, stdout, stderr = run("report", out, "--out", tmp_path / "tables.md")
    assert code == 0, stderr
    assert "Change against plain-2" in (tmp_path / "tables.md").read_text()
    code, _, stderr = run("report", out)
    assert code == 0, stderr
    study.write_text(TOML + "epsilon = 3\n")
    assert "epsilon" in fails(5, "study", study, "--out", tmp_path / "out")


def test_the_built_in_study_compares_the_built_in_recipes():
    study = MetricAsLoss.read("metric-as-loss")
    from resolute import read_recipe

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
    assert "metric-as-loss, not 'odd'" in fails(5, "study", tmp_path / "odd.toml")
    assert "leave out --budget" in fails(5, "study", "metric-as-loss", "--budget", "4/255")
    (tmp_path / "study.json").write_text("{}")
    assert "several kinds" in fails(5, "report", runs / "done", tmp_path)


def test_two_runs_are_compared_by_their_first_measure(done, runs, tmp_path):
    worse = shutil.copytree(runs / "done", tmp_path / "worse")
    rows = read_lines(worse / "records.jsonl")
    for row in rows:
        if row["restorer"] == "plain":
            row["values"]["PSNR"] -= 1
            row["weights"] = "f" * 64
    (worse / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compare_folders(runs / "done", worse)
    assert found.deltas[0].setting == ("plain",)
    assert found.deltas[0].values["PSNR"].mean == pytest.approx(-1)
    assert [delta.verdict for delta in found.deltas] == ["worse"] + ["equal"] * (len(found.deltas) - 1)
    assert [change.what for change in found.changes] == ["weights of plain"]
    with pytest.raises(ConfigError, match="metric-as-loss"):
        compare_sides(read_side(runs / "done"), Side("other", "certified-iqa", (), [], [], {}, {}, {}))
