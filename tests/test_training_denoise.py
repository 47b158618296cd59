import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from warm import train_killed

from resolute import ConfigError, DenoiseRecipe, TrainingError, load, load_scorer, read_recipe, train
from resolute.cli import app
from resolute.errors import CheckpointError
from resolute.images import sample_image, to_uint8, write_png
from resolute.models import QualityNet
from resolute.models.weights import save_model
from resolute.training.denoise import DenoiseTask
from resolute.training.denoise_recipe import DenoiseDataTable, DenoiseLossTable
from resolute.training.networks import DENOISERS
from resolute.training.photos import Photos
from resolute.training.rated import shrunk
from resolute.training.recipe import adjusted, built_in_recipes
from resolute.training.tables import OptimizerTable

TINY = DenoiseRecipe(
    name="tiny",
    metric="judge",
    sigma=0.12,
    checkpoint_every=4,
    validate_every=6,
    model=DENOISERS["unet"](widths=(8, 8)),
    data=DenoiseDataTable(crop=36, batch=4, validation=1),
    loss=DenoiseLossTable(target=1.0, rank=1.0, momentum=0.9, after=2),
    optimizer=OptimizerTable(steps=14, rate=2e-3, schedule="cosine", ema=0.8, warmup=2),
)
PLAIN = dataclasses.replace(TINY, metric="", loss=DenoiseLossTable())
TOML = """
task = "denoise"
name = "tiny"
metric = "judge"
sigma = 0.12
checkpoint_every = 4
validate_every = 6
[model]
widths = [8, 8]
[data]
crop = 36
batch = 4
validation = 1
[loss]
target = 1.0
rank = 1.0
momentum = 0.9
after = 2
[optimizer]
steps = 14
rate = 2e-3
schedule = "cosine"
ema = 0.8
warmup = 2
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:164, 150:220])
    return folder


@pytest.fixture(scope="module")
def rated(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    shutil.copytree(photos, folder, dirs_exist_ok=True)
    rows = ("astronaut.png,70,train", "coffee.png,20,train", "rocket.png,45,val")
    (folder / "mos.csv").write_text("path,mos,split\n" + "\n".join(rows) + "\n")
    return folder


def write_judge(runs: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        metric = QualityNet(widths=(4, 6), hidden=4)
        torch.nn.init.normal_(metric.head.score.weight)
    path = runs / "judge" / "judge.safetensors"
    save_model(metric, path, metric.describe("judge"))
    return path


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    write_judge(runs)
    train(TINY, [photos], runs / "unbroken", device="cpu")
    return runs / "unbroken"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "tiny.safetensors").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_a_denoiser_that_loads_with_card_and_log(unbroken):
    denoiser = load(unbroken / "tiny.safetensors", scale=1)
    judge = load_scorer(unbroken.parent / "judge" / "judge.safetensors")
    assert denoiser.card.training["recipe"] == json.loads(json.dumps(dataclasses.asdict(TINY)))
    assert denoiser.card.training["metric"] == {"name": "judge", "sha256": judge.card.sha256}
    assert set(denoiser.card.training["validation"]) >= {"psnr_rgb", "srocc_clean", "shift", "std", "target", "rank"}
    card = (unbroken / "tiny.md").read_text()
    for fact in (denoiser.card.sha256, judge.card.sha256, "0.12 on [0, 1]", "1 x rank by metric", "4 crops of 36 x 36"):
        assert fact in card
    assert "| not measured" in card
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6, 12, 14]


@pytest.mark.parametrize("moment", [1, 3, 5, 13])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(moment, photos, unbroken, tmp_path):
    def interrupt(step, _figures):
        if step == moment:
            raise KeyboardInterrupt

    write_judge(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, [photos], tmp_path / "run", device="cpu", on_step=interrupt)
    train(TINY, [photos], tmp_path / "run", device="cpu")
    assert same(weights(tmp_path / "run"), weights(unbroken))
    assert (tmp_path / "run" / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(photos, unbroken, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    assert read_recipe(recipe) == TINY
    write_judge(tmp_path)
    out = tmp_path / "run"
    train_killed(recipe, photos, out)
    train(read_recipe(recipe), [photos], out, device="cpu")
    assert same(weights(out), weights(unbroken))


@pytest.mark.slow
def test_the_command_line_takes_another_metric_and_keeps_its_path_off_the_card(photos, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TOML)
    judge = write_judge(tmp_path / "elsewhere")
    command = ["train", str(recipe), "--data", str(photos), "--out", str(tmp_path / "run"), "--metric", str(judge)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "SROCC" in result.output
    card = load(tmp_path / "run" / "tiny.safetensors").card
    assert card.training["recipe"]["metric"] == "judge"
    assert "elsewhere" not in json.dumps(dataclasses.asdict(card)) + (tmp_path / "run" / "tiny.md").read_text()


def test_denoising_is_learnt(photos, tmp_path):
    recipe = dataclasses.replace(
        PLAIN, validate_every=120, optimizer=OptimizerTable(steps=120, rate=1e-2, schedule="cosine")
    )
    psnrs = []
    train(recipe, [photos], tmp_path, device="cpu", on_step=lambda _step, figures: psnrs.append(figures["psnr"]))
    assert np.mean(psnrs[-10:]) > np.mean(psnrs[:10]) + 2


@pytest.mark.parametrize(
    ("loss", "figures"),
    [
        (DenoiseLossTable(), set()),
        (DenoiseLossTable(target=1.0), {"target", "rank"}),
        (DenoiseLossTable(rank=1.0), {"target", "rank"}),
        (DenoiseLossTable(target=1.0, rank=1.0), {"target", "rank"}),
    ],
)
def test_terms_switch_off(loss, figures, photos, tmp_path):
    recipe = dataclasses.replace(TINY, loss=loss)
    task = DenoiseTask(recipe, [photos], write_judge(tmp_path))
    total, seen = task.loss(task.parts, task.batch(0, 0, 1), 0, 0)
    assert set(seen) == {"psnr"} | figures
    mse = 10 ** (-seen["psnr"] / 10)
    # At the first step the averages are the losses themselves, so that every term weighs as much as the MSE.
    solved = seen.get("rank", 1) < 1e-4
    assert total.item() <= (1 + (loss.target > 0) + (loss.rank > 0)) * mse * (1 + 1e-4)
    assert solved or total.item() == pytest.approx((1 + (loss.target > 0) + (loss.rank > 0)) * mse, rel=1e-4)
    total.backward()
    assert all(parameter.grad is None for parameter in task.metric.parameters())
    assert task.model.last.weight.grad.abs().max() > 0


def test_the_other_terms_wait_their_steps(photos, tmp_path):
    task = DenoiseTask(TINY, [photos], write_judge(tmp_path))
    assert "target" not in task.loss(task.parts, task.batch(1, 0, 1), 1, 0)[1]
    assert "target" in task.loss(task.parts, task.batch(2, 0, 1), 2, 0)[1]


def test_human_scores_order_the_images_where_the_recipe_says_so(photos, rated, tmp_path):
    judge = write_judge(tmp_path)
    recipe = dataclasses.replace(TINY, loss=DenoiseLossTable(rank=1.0, order="opinion"))
    task = DenoiseTask(recipe, [rated], judge)
    assert sorted(task.batch(0, 0, 1)[1].tolist()) == [20.0, 20.0, 70.0, 70.0]
    task.parts.eval()
    with torch.no_grad():
        assert "srocc_mos" in task.validate()
    both = dataclasses.replace(recipe, loss=DenoiseLossTable(rank=1.0, order="both"))
    rank, halved = (
        DenoiseTask(each, [rated], judge).loss(task.parts, task.batch(0, 0, 1), 0, 0)[1]["rank"]
        for each in (recipe, both)
    )
    own = DenoiseTask(dataclasses.replace(recipe, loss=DenoiseLossTable(rank=1.0)), [rated], judge)
    of_metric = own.loss(task.parts, task.batch(0, 0, 1), 0, 0)[1]["rank"]
    assert rank != of_metric
    assert halved == pytest.approx((rank + of_metric) / 2)
    for each in (recipe, both):
        with pytest.raises(ConfigError, match=r"mos\.csv.* loss\.order"):
            DenoiseTask(each, [rated, photos], judge)


def test_a_batch_depends_on_seed_and_step_alone_and_ranks_share_it(photos):
    task = DenoiseTask(PLAIN, [photos])
    whole, again = task.batch(3, 0, 1), task.batch(3, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip((whole[0], whole[2]), (again[0], again[2]), strict=True))
    assert not torch.equal(whole[2], task.batch(4, 0, 1)[2])
    shares = [task.batch(3, rank, 2) for rank in range(2)]
    for part in (0, 2):
        assert torch.equal(whole[part], torch.stack([share[part] for share in shares], dim=1).flatten(0, 1))


def test_noise_has_the_stated_level_and_both_ends_are_clipped(photos, monkeypatch):
    task = DenoiseTask(dataclasses.replace(PLAIN, sigma=0.5), [photos])
    clean, _, noise = task.batch(0, 0, 1)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    seen = []
    monkeypatch.setattr(task.model, "forward", lambda x: seen.append(x) or 3 * x - 1)
    error, _ = task.loss(task.parts, (clean, torch.zeros(4), noise), 0, 0)
    noisy = (clean + 0.5 * noise).clamp(0, 1)
    assert torch.equal(seen[0], noisy)
    assert error.item() == pytest.approx(((3 * noisy - 1).clamp(0, 1) - clean).square().mean().item(), rel=1e-5)


def test_nan_stops_the_run_and_keeps_the_last_good_weights(photos, tmp_path, monkeypatch):
    good = Photos.batch

    def poisoned(self, seed, step, size, rank=0, ranks=1):
        images, scores = good(self, seed, step, size, rank, ranks)
        return images * torch.nan if step == 9 else images, scores

    monkeypatch.setattr(Photos, "batch", poisoned)
    write_judge(tmp_path)
    with pytest.raises(TrainingError, match=r"step 10: .*step 8 "):
        train(TINY, [photos], tmp_path / "run", device="cpu")
    assert load(tmp_path / "run" / "tiny.safetensors").card.training["steps"] == 8


def test_a_run_does_not_go_on_with_another_metric(photos, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    write_judge(tmp_path, seed=1)
    with pytest.raises(ConfigError, match=r"metric.*--out"):
        train(TINY, [photos], tmp_path / "run", device="cpu")


def test_a_metric_that_is_missing_or_needless_is_named(photos, tmp_path):
    with pytest.raises(CheckpointError, match="'judge'"):
        train(TINY, [photos], tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"loss\.target and loss\.rank"):
        train(dataclasses.replace(TINY, metric=""), [photos], tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="--metric"):
        adjusted(PLAIN, metric="judge")
    assert adjusted(TINY, metric="other", seed=4) == dataclasses.replace(TINY, metric="other", seed=4)


def test_images_that_no_crop_fits_are_named(tmp_path):
    for name in "abc":
        write_png(tmp_path / f"{name}.png", torch.zeros(3, 20, 20))
    with pytest.raises(ConfigError, match=r"the 3 images .* 36 pixels"):
        train(PLAIN, [tmp_path], tmp_path / "out", device="cpu")


def test_validation_images_are_held_out_and_large_ones_cut_to_the_middle(tmp_path, photos):
    write_png(tmp_path / "wide.png", torch.zeros(3, 40, 500))
    found = Photos([tmp_path, photos], crop=36, validation=1)
    assert len(found.training) == 3
    assert [image.shape for image, _ in found.validation] == [(40, 384, 3)]


def test_zoomed_photographs_are_shrunk_to_the_crop_held_out_ones_whole(photos):
    found = Photos([photos], crop=36, validation=1, zoom=True)
    held_out = [shrunk(to_uint8(sample_image(name)[:, 100:164, 153:217]), 36) for name in ("astronaut", "rocket")]
    assert any(np.array_equal(found.validation[0][0], whole) for whole in held_out)
    crops = found.batch(0, 0, 4)[0]
    assert crops.shape[-2:] == (36, 36)
    assert not torch.equal(crops, Photos([photos], crop=36, validation=1).batch(0, 0, 4)[0])


def test_built_in_weights_are_started_from_unless_a_run_lies_beside(photos, tmp_path):
    recipe = dataclasses.replace(
        read_recipe("denoiser-mse-m-012"),
        validate_first=False,
        data=DenoiseDataTable(crop=36, batch=2, validation=0),
        optimizer=OptimizerTable(steps=0),
    )
    made = train(recipe, [photos], tmp_path / "run", device="cpu").weights
    assert same(load(made, scale=1).state_dict(), load("denoiser-mse-012", scale=1).state_dict())
    with pytest.raises(ConfigError, match=r"denoiser-pretrain.* neither beside .* nor built in"):
        train(dataclasses.replace(recipe, start="denoiser-pretrain"), [photos], tmp_path / "other", device="cpu")


def test_built_in_denoisers_differ_in_what_their_names_say():
    recipes = {name: read_recipe(name) for name in built_in_recipes()}
    for name, sigma in (("006", 0.06), ("012", 0.12), ("024", 0.24)):
        plain, judged = recipes[f"denoiser-mse-{name}"], recipes[f"denoiser-iqa-{name}"]
        assert plain.sigma == judged.sigma == sigma
        assert dataclasses.replace(judged, name=plain.name, metric="", loss=plain.loss) == plain
        assert (plain.loss.target, plain.loss.rank) == (0, 0)
        assert plain.start == "denoiser-pretrain"
    plain, judged = recipes["denoiser-mse-m-012"], recipes["denoiser-iqa-m-012"]
    assert dataclasses.replace(judged, name=plain.name, loss=plain.loss) == plain
    assert (plain.loss.target, plain.loss.rank) == (0, 0)
    assert (judged.metric, judged.loss.order, judged.start) == ("quality-m", "both", "denoiser-mse-012")
    on = {
        name: (recipes[f"denoiser-{name}-012"].loss.target > 0, recipes[f"denoiser-{name}-012"].loss.rank > 0)
        for name in ("mse", "target", "rank", "iqa")
    }
    assert on == {"mse": (False, False), "target": (True, False), "rank": (False, True), "iqa": (True, True)}
    assert sum(p.numel() for p in recipes["dncnn-mse-012"].model.build().parameters()) == 557_443
    for stem, recipe in recipes.items():
        assert recipe.name == stem
