import csv
import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import imagenet_classifier
from scipy.stats import spearmanr
from typer.testing import CliRunner
from warm import train_killed

from resolute import ConfigError, ImageError, Recipe, ScoreRecipe, TrainingError, load_scorer, read_recipe, train
from resolute.cli import app
from resolute.images import sample_image, to_uint8, write_png
from resolute.measure.gmsd import gmsd
from resolute.models import EfficientNetScorer, MobileNetScorer
from resolute.models.weights import weights_sha256
from resolute.training.distortions import DISTORTIONS, DistortedImages, distort, worsened
from resolute.training.rated import RatedImages, read_ratings
from resolute.training.recipe import adjusted
from resolute.training.score import ScoreTask, batch_plcc
from resolute.training.score_recipe import ScoreDataTable, ScoreLossTable, ScoreModelTable
from resolute.training.tables import OptimizerTable

TINY = ScoreRecipe(
    name="tiny",
    checkpoint_every=4,
    validate_every=6,
    model=ScoreModelTable(widths=(4, 6), hidden=4),
    data=ScoreDataTable(crop=40, batch=4),
    loss=ScoreLossTable(regression="huber", correlation=0.1, rank=0.1),
    optimizer=OptimizerTable(steps=14, rate=2e-3, schedule="cosine", ema=0.8, warmup=2),
)
SYNTHETIC = dataclasses.replace(
    TINY, name="synthetic", data=ScoreDataTable(kind="synthetic", crop=40, batch=4, validation=1)
)
TOML = """
task = "score"
name = "tiny"
checkpoint_every = 4
validate_every = 6
[model]
widths = [4, 6]
hidden = 4
[data]
crop = 40
batch = 4
[loss]
regression = "huber"
correlation = 0.1
rank = 0.1
[optimizer]
steps = 14
rate = 2e-3
schedule = "cosine"
ema = 0.8
warmup = 2
"""


class Weighed(torch.nn.Module):
    """A linear score of 0 to 100, whose gradient is known."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, x):
        return 100 * (x * self.weights).sum(dim=(1, 2, 3))


def test_the_gradient_and_attacked_images_count_in_the_loss(rated):
    weights = torch.tensor([0.01, -0.02, 0.0]).view(3, 1, 1).expand(3, 4, 4).clone()
    module = Weighed(weights)
    images, targets = torch.full((2, 3, 4, 4), 0.5), torch.tensor([10.0, 60.0])

    def loss_of(**changes):
        loss = ScoreLossTable(regression="mse", **changes)
        task = ScoreTask(dataclasses.replace(TINY, loss=loss), [rated])
        task.model = module
        return task.loss(module, (images, targets), 3, 0)[0]

    scores = module(images).detach() / 100
    norm = float(weights.abs().sum())
    plain = loss_of().detach()
    assert plain.item() == pytest.approx(float((scores - targets / 100).square().mean()), rel=1e-5)
    assert loss_of(gradient=3.0).item() == pytest.approx(plain.item() + 1.5 * norm**2, rel=1e-4)
    assert torch.autograd.grad(loss_of(gradient=3.0), module.weights)[0].abs().sum() > 0
    moved = norm * 8 / 255
    possible = [
        float((plain + (scores + torch.tensor(signs) * moved - targets / 100).square().mean()) / 2)
        for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))
    ]
    found = loss_of(attacked=8).item()
    assert min(abs(found - one) for one in possible) < 1e-6
    assert found == loss_of(attacked=8).item()


def write_table(folder, rows, columns=("path", "mos", "std", "split")):
    with (folder / "mos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A folder of photographs, the darker and noisier the worse."""
    folder = tmp_path_factory.mktemp("rated")
    rows = []
    for index in range(12):
        generator = torch.Generator().manual_seed(index)
        name = ("astronaut", "coffee", "rocket")[index % 3]
        image = sample_image(name)[:, 100:150, 150:198]
        path = folder / f"{index}.png"
        write_png(
            path, (image * (1 - index / 14) + 0.01 * index * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        )
        split = "val" if index % 4 == 1 else "test" if index == 11 else "train"
        rows.append({"path": path.name, "mos": 90 - 7 * index, "std": 3, "split": split})
    write_table(folder, rows)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:180, 150:250])
    return folder


@pytest.fixture(scope="module")
def unbroken(rated, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    train(TINY, [rated], out, device="cpu")
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_scorer(folder / "tiny.safetensors").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_a_metric_that_loads_with_card_and_log(unbroken):
    metric = load_scorer(unbroken / "tiny.safetensors")
    assert (metric.card.low, metric.card.high) == (0.0, 100.0)
    assert metric.card.training["steps"] == 14
    assert metric.card.training["recipe"] == json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert set(metric.card.training["validation"]) >= {"srocc", "plcc", "loss"}
    card = (unbroken / "tiny.md").read_text()
    for fact in (
        metric.card.sha256,
        "14 of 4 crops of 40 x 40",
        "validation SROCC",
        "mean opinion scores",
        "rank loss",
    ):
        assert fact in card
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6, 12, 14]


@pytest.mark.parametrize("moment", [1, 4, 13])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(moment, rated, unbroken, tmp_path):
    def interrupt(step, _figures):
        if step == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, [rated], tmp_path, device="cpu", on_step=interrupt)
    train(TINY, [rated], tmp_path, device="cpu")
    assert same(weights(tmp_path), weights(unbroken))
    assert (tmp_path / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(rated, unbroken, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    assert read_recipe(recipe) == TINY
    out = tmp_path / "run"
    train_killed(recipe, rated, out)
    train(read_recipe(recipe), [rated], out, device="cpu")
    assert same(weights(out), weights(unbroken))


@pytest.mark.slow
def test_the_command_line_says_how_good_it_is(rated, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    result = CliRunner().invoke(
        app, ["train", str(recipe), "--data", str(rated), "--out", str(tmp_path / "run"), "--seed", "3"]
    )
    assert result.exit_code == 0, result.output
    assert "validation SROCC" in result.output
    assert (tmp_path / "run" / "tiny.safetensors").is_file()


def test_training_learns(rated, tmp_path):
    recipe = dataclasses.replace(
        TINY,
        validate_every=250,
        model=ScoreModelTable(widths=(8, 8), hidden=8),
        optimizer=OptimizerTable(steps=250, rate=5e-3, schedule="cosine"),
    )
    errors = []
    trained = train(recipe, [rated], tmp_path, device="cpu", on_step=lambda _s, figures: errors.append(figures["rmse"]))
    assert np.mean(errors[-20:]) < 0.7 * np.mean(errors[:20])
    assert trained.figures["srocc"] > 0.9


@pytest.mark.parametrize("regression", ["mse", "huber"])
def test_terms_switch_off(regression, rated, tmp_path):
    recipe = dataclasses.replace(
        TINY, loss=ScoreLossTable(regression=regression), optimizer=OptimizerTable(steps=1, rate=1e-3)
    )
    figures = train(recipe, [rated], tmp_path, device="cpu").figures
    assert "batch_plcc" not in figures
    if regression == "mse":
        assert figures["loss"] == pytest.approx((figures["rmse"] / 100) ** 2)


def test_nan_stops_the_run_and_keeps_the_last_good_weights(rated, tmp_path, monkeypatch):
    good = RatedImages.batch

    def poisoned(self, seed, step, size, rank=0, ranks=1):
        images, scores = good(self, seed, step, size, rank, ranks)
        return images, scores * torch.nan if step == 9 else scores

    monkeypatch.setattr(RatedImages, "batch", poisoned)
    with pytest.raises(TrainingError, match=r"step 10: .*step 8 "):
        train(TINY, [rated], tmp_path, device="cpu")
    assert load_scorer(tmp_path / "tiny.safetensors").card.training["steps"] == 8


def test_every_rated_image_comes_once_before_any_comes_again(rated):
    images = RatedImages(rated, crop=40)
    assert (len(images.training), len(images.validation)) == (8, 3)
    scores = [score for step in range(2) for score in images.batch(0, step, 4)[1].tolist()]
    assert sorted(scores) == sorted(mos for _, mos in images.training)


@pytest.mark.parametrize("kind", ["rated", "synthetic"])
def test_a_batch_depends_on_seed_and_step_alone_and_ranks_share_it(kind, rated, photos):
    source = RatedImages(rated, 40) if kind == "rated" else DistortedImages([photos], 40, 1, 0)
    images, scores = source.batch(0, 3, 6)
    again = source.batch(0, 3, 6)
    assert torch.equal(images, again[0])
    assert torch.equal(scores, again[1])
    assert not torch.equal(images, source.batch(0, 4, 6)[0])
    assert not torch.equal(images, source.batch(1, 3, 6)[0])
    shares = [source.batch(0, 3, 6, rank, 3) for rank in range(3)]
    assert torch.equal(images, torch.stack([share[0] for share in shares], dim=1).flatten(0, 1))
    torch.testing.assert_close(scores, torch.stack([share[1] for share in shares], dim=1).flatten())


def test_noise_is_keyed_by_the_step_shared_by_the_ranks_and_clipped(rated):
    quiet = ScoreTask(TINY, [rated])
    loud = ScoreTask(dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, sigma=0.3)), [rated])
    clean, (images, scores) = quiet.batch(3, 0, 1)[0], loud.batch(3, 0, 1)
    assert torch.equal(images, loud.batch(3, 0, 1)[0])
    assert torch.equal(images[1::2], loud.batch(3, 1, 2)[0])
    assert torch.equal(scores, quiet.batch(3, 0, 1)[1])
    inside = (clean > 0.4) & (clean < 0.6)
    assert (images - clean)[inside].std() == pytest.approx(0.3, rel=0.15)
    assert (images.min(), images.max()) == (0, 1)
    assert loud.validate() == loud.validate() != quiet.validate()


def test_a_metric_starts_from_synthetic_distortions(rated, photos, tmp_path):
    pretrained = train(SYNTHETIC, [photos], tmp_path / "synthetic", device="cpu")
    assert "no opinions" in pretrained.weights.with_suffix(".md").read_text()
    assert 0 <= abs(pretrained.figures["srocc"]) <= 1
    recipe = dataclasses.replace(TINY, start="synthetic", optimizer=OptimizerTable(steps=1, rate=1e-12))
    trained = train(recipe, [rated], tmp_path / "tiny", device="cpu")
    started, ended = load_scorer(pretrained.weights), load_scorer(trained.weights)
    for name, tensor in ended.state_dict().items():
        torch.testing.assert_close(tensor, started.state_dict()[name], atol=1e-9, rtol=0)
    assert ended.card.training["started_from"] == started.card.sha256


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=lambda d: d.__name__)
def test_a_stronger_distortion_changes_more(distortion):
    image = to_uint8(sample_image("coffee")[:, 100:196, 100:196])
    errors = []
    for level in (0.1, 0.5, 1.0):
        result = distortion(image, level, np.random.default_rng(0))
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        errors.append(float(np.abs(result.astype(float) - image).mean()))
    assert 0 < errors[0] < errors[1] < errors[2]


def test_some_images_stay_as_they_are_and_scores_lie_in_their_range(photos):
    image = to_uint8(sample_image("coffee")[:, 100:164, 100:164])
    same_as_before = [np.array_equal(distort(image, np.random.default_rng(seed)), image) for seed in range(120)]
    assert 2 <= sum(same_as_before) <= 25
    _, scores = DistortedImages([photos], 40, 1, 0).batch(0, 0, 32)
    assert 0 <= scores.min() < 0.6 < scores.max() <= 1


def test_a_worsened_photograph_keeps_the_less_of_its_opinion_the_more_it_changed():
    image = to_uint8(sample_image("coffee")[:, 100:164, 100:164])
    found = [worsened(image, 80.0, np.random.default_rng(seed), share=0.5, low=10.0) for seed in range(300)]
    changed = np.array([float(np.abs(other.astype(float) - image).mean()) for other, _ in found])
    left = np.array([opinion for _, opinion in found])
    assert ((changed == 0) == (left == 80)).mean() > 0.97
    assert 110 < (left == 80).sum() < 190
    assert 10 < left.min() < 30
    assert spearmanr(changed, left)[0] < -0.7


def test_crops_of_any_side_are_shrunk_and_worsened_the_same_for_every_rank(rated):
    plain, zoomed = RatedImages(rated, 24), RatedImages(rated, 24, zoom=True, alter=partial(worsened, share=0.5))
    images, scores = zoomed.batch(0, 3, 6)
    assert images.shape == (6, 3, 24, 24)
    shares = [zoomed.batch(0, 3, 6, rank, 3) for rank in range(3)]
    assert torch.equal(images, torch.stack([share[0] for share in shares], dim=1).flatten(0, 1))
    torch.testing.assert_close(scores, torch.stack([share[1] for share in shares], dim=1).flatten())
    below = [zoomed.batch(0, step, 8)[1] < plain.batch(0, step, 8)[1] for step in range(20)]
    assert 0.3 < torch.cat(below).float().mean() < 0.7


def test_zoomed_crops_reach_from_the_crop_to_the_whole_image(tmp_path):
    ramp = torch.linspace(0, 1, 80).expand(3, 80, 80)
    write_png(tmp_path / "a.png", ramp)
    write_table(tmp_path, [GOOD, VAL])
    images, _ = RatedImages(tmp_path, 40, zoom=True).batch(0, 0, 64)
    spans = (images[:, 0].amax(dim=(1, 2)) - images[:, 0].amin(dim=(1, 2))) * 79 + 1
    assert 38 < spans.min() < 46
    assert 74 < spans.max() <= 81


def test_gmsd_is_zero_for_equal_images_grows_with_blur_and_knows_a_hand_made_case():
    x = sample_image("coffee")[None, :, :96, :96]
    blurred = [torch.nn.functional.avg_pool2d(x, k, stride=1, padding=k // 2, count_include_pad=False) for k in (3, 7)]
    assert gmsd(x, x).item() == 0
    assert 0 < gmsd(x, blurred[0]).item() < gmsd(x, blurred[1]).item() < 0.35
    torch.testing.assert_close(gmsd(x, blurred[0]), gmsd(blurred[0], x))
    # A step of one against nothing: similarity c / (1 + c) along the step and 1 elsewhere, on two of six columns.
    flat, step = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1
    c = 170 / 255**2
    values = torch.tensor([1.0, 1.0, c / (0.9999**2 + c), c / (0.9999**2 + c), 1.0, 1.0]).repeat(6)
    assert gmsd(flat, step).item() == pytest.approx(values.std().item(), rel=1e-4)


def test_gmsd_refuses_images_of_two_sizes(unchecked_shapes):
    with pytest.raises(ValueError, match="one size"):
        gmsd(torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 10))


def test_the_correlation_of_a_batch_agrees_with_scipy():
    from scipy.stats import pearsonr

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=20), rng.normal(size=20).round(1)
    assert batch_plcc(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(pearsonr(a, b).statistic, abs=1e-4)
    constant = torch.full((3,), 0.5, requires_grad=True)
    batch_plcc(constant, torch.tensor([0.0, 1.0, 2.0])).backward()
    assert constant.grad.isfinite().all()


GOOD = {"path": "a.png", "mos": "50", "split": "train"}
VAL = {"path": "a.png", "mos": "60", "split": "val"}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([GOOD, VAL], ("path", "mos"), r"mos.csv lacks the column 'split'; its first line must name path, mos, split"),
        ([GOOD | {"path": "gone.png"}, VAL], None, r"line 2: there is no image .*gone.png; put it there or remove"),
        ([GOOD | {"path": ""}, VAL], None, "line 2: there is no image"),
        ([GOOD], None, "has no image in the split 'val'; write val in that column of some rows"),
        ([VAL], None, "has no image in the split 'train'"),
        ([GOOD, VAL | {"mos": "nan"}], None, r"line 3: 'nan' is no opinion score; write a number or remove the line"),
        ([GOOD | {"mos": "good"}, VAL], None, "line 2: 'good' is no opinion score"),
        ([GOOD | {"split": "training"}, VAL], None, "the split is one of train, val, test, not 'training'"),
        ([GOOD | {"mos": "101"}, VAL], None, r"score 101 is outside \[0, 100\]; set model.low and model.high"),
        ([], None, "has no image in the split 'train'"),
    ],
)
def test_bad_tables_say_what_to_do(rows, columns, message, tmp_path):
    write_png(tmp_path / "a.png", torch.zeros(3, 50, 50))
    write_table(tmp_path, rows, columns or ("path", "mos", "split"))
    with pytest.raises(ConfigError, match=message):
        train(TINY, [tmp_path], tmp_path / "out", device="cpu")


def test_a_folder_without_a_table_or_two_folders_are_named(photos, rated, tmp_path):
    with pytest.raises(ConfigError, match=r"mos\.csv.*: path, mos, split"):
        train(TINY, [photos], tmp_path, device="cpu")
    with pytest.raises(ConfigError, match=r"not 2.*--data"):
        train(TINY, [rated, rated], tmp_path, device="cpu")


def test_a_table_with_a_byte_order_mark_and_columns_in_any_order_is_read(tmp_path):
    write_png(tmp_path / "a.png", torch.zeros(3, 50, 50))
    (tmp_path / "mos.csv").write_text("﻿split,width,mos,path\ntrain,1,2.5,a.png\nval,1,3,a.png\n", encoding="utf-8")
    assert [(rating.mos, rating.split) for rating in read_ratings(tmp_path)] == [(2.5, "train"), (3.0, "val")]


def test_images_that_no_crop_fits_are_named(tmp_path):
    write_png(tmp_path / "a.png", torch.zeros(3, 50, 36))
    write_png(tmp_path / "b.png", torch.zeros(3, 36, 50))
    write_table(tmp_path, [GOOD, GOOD | {"path": "b.png"}, VAL])
    with pytest.raises(ConfigError, match=r"\b40\b.* data\.crop"):
        train(TINY, [tmp_path], tmp_path / "out", device="cpu")
    whole = dataclasses.replace(TINY, data=ScoreDataTable(crop=0, batch=2))
    with pytest.raises(ConfigError, match=r"size .*data\.crop"):
        train(whole, [tmp_path], tmp_path / "out", device="cpu")
    with pytest.raises(ConfigError, match=r"synthetic .*crops"):
        train(dataclasses.replace(SYNTHETIC, data=ScoreDataTable(kind="synthetic", crop=0)), [tmp_path], tmp_path)
    with pytest.raises(ConfigError, match=r"the 2 images.* 40 pixels"):
        train(SYNTHETIC, [tmp_path], tmp_path / "out", device="cpu")


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    write_table(tmp_path, [GOOD, VAL])
    with pytest.raises(ImageError, match=r"a\.png"):
        train(TINY, [tmp_path], tmp_path / "out", device="cpu")


def test_a_backbone_is_asked_for_and_offered_only_where_there_is_one(rated, tmp_path):
    with pytest.raises(ConfigError, match=r"file .*--backbone"):
        train(read_recipe("quality-mobilenet"), [rated], tmp_path, device="cpu")
    with pytest.raises(ConfigError, match=r"tiny .*--backbone"):
        adjusted(TINY, backbone=Path("x"))
    with pytest.raises(ConfigError, match=r"tiny .*--metric"):
        adjusted(TINY, metric="quality-s")


def test_recipes_name_their_task_and_inherit(tmp_path):
    assert isinstance(read_recipe("edsr-s"), Recipe)
    assert isinstance(read_recipe("quality-s"), ScoreRecipe)
    (tmp_path / "child.toml").write_text('base = "quality-s"\nname = "child"\n[optimizer]\nsteps = 7\n')
    child, parent = read_recipe(tmp_path / "child.toml"), read_recipe("quality-s")
    optimizer = dataclasses.replace(parent.optimizer, steps=7)
    assert child == dataclasses.replace(parent, name="child", optimizer=optimizer)
    (tmp_path / "grandchild.toml").write_text('base = "child"\nname = "grandchild"\n')
    assert read_recipe(tmp_path / "grandchild.toml").optimizer.steps == 7
    for text, message in (
        ('task = "classify"\nname = "x"\n', "task is one of restore, score, denoise, harden, not 'classify'"),
        ('base = "wrong"\nname = "x"\n', "is based on this recipe"),
        ('base = "nowhere"\n', "no recipe 'nowhere'"),
        ('task = "score"\nname = "x"\n[data]\npatch = 3\n', "data.patch"),
    ):
        (tmp_path / "wrong.toml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_recipe(tmp_path / "wrong.toml")


@pytest.fixture(scope="module")
def tuning(tmp_path_factory):
    """A recipe that starts from a classifier with random weights."""
    path = tmp_path_factory.mktemp("backbone") / "lite0.pth"
    torch.save(imagenet_classifier(), path)
    model = ScoreModelTable(architecture="efficientnet", hidden=0, ridge=1.0, backbone=str(path))
    return dataclasses.replace(TINY, model=model, optimizer=OptimizerTable(steps=3, rate=1e-4, ema=0.5))


def test_a_linear_head_starts_from_ridge_regression(rated, tuning):
    task = ScoreTask(tuning, [rated])
    seen = [task.batch(step, 0, 1) for step in range(4)]

    def error():
        with torch.no_grad():
            return torch.cat([task.model(images) - opinions for images, opinions in seen]).abs().mean().item()

    before = error()
    task.begin()
    assert error() < before / 4


def test_a_head_alone_learns_from_photographs_of_which_a_share_is_noised(rated, tuning, tmp_path):
    data = dataclasses.replace(tuning.data, sigma=0.3, noised=0.5, batch=40)
    recipe = dataclasses.replace(tuning, data=data, validate_first=True, optimizer=OptimizerTable(steps=0))
    task = ScoreTask(recipe, [rated])
    plain = ScoreTask(dataclasses.replace(recipe, data=dataclasses.replace(data, sigma=0.0)), [rated])
    moved = (task.batch(0, 0, 1)[0] - plain.batch(0, 0, 1)[0]).flatten(1).abs().amax(dim=1) > 0
    assert 10 < moved.sum() < 30
    shares = [task.batch(0, rank, 2)[0] for rank in range(2)]
    assert torch.equal(task.batch(0, 0, 1)[0], torch.stack(shares, dim=1).flatten(0, 1))
    trained = train(recipe, [rated], tmp_path, device="cpu")
    metric = load_scorer(trained.weights)
    task.begin()
    torch.testing.assert_close(metric.head.score.weight, task.model.head.score.weight)
    fresh = EfficientNetScorer.from_backbone(Path(tuning.model.backbone))
    assert all(
        torch.equal(a, b) for a, b in zip(metric.backbone.parameters(), fresh.backbone.parameters(), strict=True)
    )
    assert set(trained.figures) == {"srocc", "plcc"}
    assert "on 0.5 of the images" in (tmp_path / "tiny.md").read_text()


def test_all_of_an_efficientnet_learns_from_a_backbone_that_the_card_names(rated, tuning, tmp_path):
    metric = load_scorer(train(tuning, [rated], tmp_path, device="cpu").weights)
    assert isinstance(metric, EfficientNetScorer)
    fresh = EfficientNetScorer.from_backbone(Path(tuning.model.backbone))
    assert not any(torch.equal(a, b) for a, b in zip(metric.parameters(), fresh.parameters(), strict=True))
    assert metric.card.training["recipe"]["model"]["backbone"] == "lite0.pth"
    page = (tmp_path / "tiny.md").read_text()
    assert f"lite0.pth, sha256 `{weights_sha256(fresh.backbone.state_dict())}`" in page
    assert str(tmp_path.parent) not in page


@pytest.mark.data
@pytest.mark.slow
def test_the_head_alone_learns_on_a_frozen_backbone(rated, data_dir, tmp_path):
    backbone = next((data_dir / "iqa" / "weights" / "backbone_mobilenetv2").glob("*.pth"))
    recipe = adjusted(
        dataclasses.replace(
            read_recipe("quality-mobilenet"),
            data=ScoreDataTable(crop=40, batch=4),
            optimizer=OptimizerTable(steps=2, rate=1e-3, ema=0.5),
        ),
        backbone=backbone,
    )
    metric = load_scorer(train(recipe, [rated], tmp_path, device="cpu").weights)
    assert isinstance(metric, MobileNetScorer)
    fresh = MobileNetScorer.from_backbone(backbone)
    for name, tensor in metric.backbone.state_dict().items():
        torch.testing.assert_close(tensor, fresh.backbone.state_dict()[name])
    assert metric.card.training["recipe"]["model"]["backbone"] == backbone.name
    assert str(backbone.parent) not in (tmp_path / "quality-mobilenet.md").read_text()
