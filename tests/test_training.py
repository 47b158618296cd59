import dataclasses
import errno
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from full_disk import counted, full_from
from odd import FULL, tried
from safetensors.torch import load_file
from warm import Typed, train_killed

import resolute
from resolute import ConfigError, DenoiseRecipe, Recipe, ScoreRecipe, TrainingError, load, load_scorer, train
from resolute.defences.entropy import Entropy
from resolute.errors import CheckpointError, ImageError, OutputError
from resolute.images import sample_image, write_png
from resolute.models import built_in_models, built_in_scorers
from resolute.models.archive import load_archive
from resolute.resize import downscale
from resolute.training.loop import Ahead, learning_rate
from resolute.training.networks import UPSCALERS
from resolute.training.patches import Patches
from resolute.training.recipe import built_in_recipes, read_recipe
from resolute.training.restore_recipe import DataTable
from resolute.training.tables import OptimizerTable

TINY = Recipe(
    name="tiny",
    checkpoint_every=4,
    validate_every=6,
    model=UPSCALERS["edsr"](blocks=1, channels=6, upsampler="direct", scale=2),
    data=DataTable(patch=12, batch=4, validation=1),
    optimizer=OptimizerTable(steps=18, rate=2e-3, schedule="cosine", ema=0.8, warmup=2),
    defence=Entropy(),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "rocket"):
        image = sample_image(name)
        write_png(folder / f"{name}.png", image[:, 100:180, 150:250])
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "tiny.safetensors").state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    train(TINY, [photos], out, device="cpu")
    return out


def test_a_run_leaves_weights_card_density_and_log(unbroken):
    model = load(unbroken / "tiny.safetensors", scale=2)
    assert model.card.training["steps"] == 18
    assert model.card.training["recipe"]["seed"] == 0
    card = (unbroken / "tiny.md").read_text()
    for fact in (model.card.sha256, "18 of 4 patches", "entropy", "validation PSNR", "not stated", "seed"):
        assert fact in card
    steps = [json.loads(line)["step"] for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert steps == [6, 12, 18]
    density = torch.load(unbroken / "tiny.density.pt", weights_only=True)
    assert density["matrices.0"].shape == (6, 3, 1)


def test_training_learns(photos, tmp_path):
    recipe = dataclasses.replace(
        TINY, defence=None, optimizer=OptimizerTable(steps=150, rate=5e-3, schedule="cosine"), validate_every=150
    )
    losses = []
    train(recipe, [photos], tmp_path, device="cpu", on_step=lambda _step, figures: losses.append(figures["l1"]))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_the_density_trains_with_the_model_and_bits_fall(photos, tmp_path):
    recipe = dataclasses.replace(
        TINY, optimizer=OptimizerTable(steps=150, rate=5e-3, schedule="cosine"), validate_every=150
    )
    bits = []
    train(recipe, [photos], tmp_path, device="cpu", on_step=lambda _step, figures: bits.append(figures["bits"]))
    assert np.mean(bits[-10:]) < np.mean(bits[:10]) - 0.5
    before = TINY.model.build()
    after = torch.load(tmp_path / "tiny.density.pt", weights_only=True)
    assert not torch.equal(after["factors.0"], torch.zeros_like(after["factors.0"]))
    assert not same(before.state_dict(), weights(tmp_path))


@pytest.mark.parametrize("moment", [1, 4, 5, 11, 17])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(moment, photos, unbroken, tmp_path):
    def interrupt(step, _figures):
        if step == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, [photos], tmp_path, device="cpu", on_step=interrupt)
    train(TINY, [photos], tmp_path, device="cpu")
    assert same(weights(tmp_path), weights(unbroken))
    assert (tmp_path / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()


def test_after_a_minute_something_is_kept(photos, tmp_path, monkeypatch):
    def interrupt(step, _figures):
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("resolute.training.loop.KEEP", 0.0)
    recipe = dataclasses.replace(TINY, checkpoint_every=1000)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, [photos], tmp_path, device="cpu", on_step=interrupt)
    assert load_archive(tmp_path / "checkpoint.pt")["step"] == 2


@pytest.mark.slow
@tried(1, 10)
def test_a_killed_process_resumes_to_the_same_weights(rng, photos, unbroken, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\ncheckpoint_every = 4\nvalidate_every = 6\n'
        '[model]\nblocks = 1\nchannels = 6\nupsampler = "direct"\nscale = 2\n'
        "[data]\npatch = 12\nbatch = 4\nvalidation = 1\n"
        '[optimizer]\nsteps = 18\nrate = 2e-3\nschedule = "cosine"\nema = 0.8\nwarmup = 2\n[defence]\n'
    )
    assert read_recipe(recipe) == TINY
    out = tmp_path / "run"
    for _ in range(2):
        train_killed(recipe, photos, out, rng.random() * 0.1)
    assert not list(out.glob("tiny.safetensors.*"))
    train(TINY, [photos], out, device="cpu")
    assert same(weights(out), weights(unbroken))
    assert not list(out.rglob(".*"))


@pytest.mark.hostile
def test_a_disk_that_is_full_at_any_write_costs_no_step(photos, unbroken, tmp_path):
    with counted(tmp_path / "count") as found:
        train(TINY, [photos], tmp_path / "count", device="cpu")
    for write in range(1, found[0] + 1) if FULL else random.Random(0).sample(range(1, found[0] + 1), 2):
        out = tmp_path / str(write)
        with full_from(out, write), pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
            train(TINY, [photos], out, device="cpu")
        train(TINY, [photos], out, device="cpu")
        assert same(weights(out), weights(unbroken)), write
        assert (out / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()
        assert not list(out.rglob(".*"))


def test_nan_stops_the_run_and_keeps_the_last_good_weights(photos, tmp_path, monkeypatch):
    good = Patches.batch

    def poisoned(self, seed, step, size, rank=0, ranks=1):
        low, high = good(self, seed, step, size, rank, ranks)
        return (low * torch.nan, high) if step == 9 else (low, high)

    monkeypatch.setattr(Patches, "batch", poisoned)
    with pytest.raises(TrainingError, match=r"step 10: .*lower.*step 8 "):
        train(TINY, [photos], tmp_path, device="cpu")
    kept = load(tmp_path / "tiny.safetensors")
    assert kept.card.training["steps"] == 8
    assert all(tensor.isfinite().all() for tensor in kept.state_dict().values())


def test_averages_leave_counts_as_they_are(photos, tmp_path):
    recipe = dataclasses.replace(
        read_recipe("srresnet-xs"), data=TINY.data, optimizer=OptimizerTable(steps=2, rate=1e-3, ema=0.9)
    )
    train(recipe, [photos], tmp_path, device="cpu")
    state = load_file(tmp_path / "srresnet-xs.safetensors")
    assert any("running_mean" in name for name in state)


def test_images_that_are_all_held_out_are_told(photos, tmp_path):
    recipe = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, validation=50))
    with pytest.raises(ConfigError, match="validation"):
        train(recipe, [photos], tmp_path, device="cpu")


def test_a_rate_that_blows_up_is_noticed_before_it_reaches_a_checkpoint(photos, tmp_path):
    recipe = dataclasses.replace(TINY, checkpoint_every=1, optimizer=OptimizerTable(steps=18, rate=1e30, ema=0))
    with pytest.raises(TrainingError, match="not finite"):
        train(recipe, [photos], tmp_path, device="cpu")


def test_another_recipe_does_not_continue_a_run(unbroken, photos):
    with pytest.raises(ConfigError, match=r"recipe.*--out"):
        train(dataclasses.replace(TINY, seed=1), [photos], unbroken, device="cpu")


def test_a_flipped_bit_in_the_checkpoint_is_not_trained_on(unbroken, photos, tmp_path):
    whole = bytearray((unbroken / "checkpoint.pt").read_bytes())
    with zipfile.ZipFile(unbroken / "checkpoint.pt") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        held = archive.read(largest)
    whole[whole.index(held) + len(held) // 2] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt .*damaged"):
        train(TINY, [photos], tmp_path, device="cpu")


def test_a_damaged_checkpoint_is_refused(photos, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(TINY, [photos], tmp_path, device="cpu")


def test_an_unknown_layer_is_named_before_training(photos, tmp_path):
    recipe = dataclasses.replace(TINY, defence=Entropy(layer="no_such"))
    with pytest.raises(ConfigError, match="'no_such'"):
        train(recipe, [photos], tmp_path, device="cpu")


def test_the_defence_attaches_to_any_layer(photos, tmp_path):
    recipe = dataclasses.replace(TINY, defence=Entropy(layer="head"), optimizer=OptimizerTable(steps=2, rate=1e-3))
    train(recipe, [photos], tmp_path, device="cpu")
    assert torch.load(tmp_path / "tiny.density.pt", weights_only=True)["matrices.0"].shape[0] == 6


def test_an_empty_folder_and_small_images_are_named(tmp_path):
    with pytest.raises(ImageError, match="no image"):
        train(TINY, [tmp_path], tmp_path / "out", device="cpu")
    write_png(tmp_path / "small.png", torch.zeros(3, 8, 8))
    with pytest.raises(ConfigError, match=r"the 1 images.* 24 pixels"):
        train(TINY, [tmp_path], tmp_path / "out", device="cpu")


def test_patches_match_and_depend_on_seed_and_step_alone(photos):
    patches = Patches([photos], scale=2, patch=12)
    low, high = patches.batch(seed=0, step=3, size=8)
    again = patches.batch(seed=0, step=3, size=8)
    assert torch.equal(low, again[0])
    assert torch.equal(high, again[1])
    assert not torch.equal(low, patches.batch(seed=0, step=4, size=8)[0])
    assert not torch.equal(low, patches.batch(seed=1, step=3, size=8)[0])
    for small, large in zip(low, high, strict=True):
        shrunk = downscale((large * 255).round().byte().permute(1, 2, 0).numpy(), 2)
        inside = torch.from_numpy(shrunk).permute(2, 0, 1)[:, 3:-3, 3:-3] / 255.0
        torch.testing.assert_close(small[:, 3:-3, 3:-3], inside, atol=1.1 / 255, rtol=0)


def test_ranks_share_one_batch(photos):
    patches = Patches([photos], scale=2, patch=12)
    whole, _ = patches.batch(0, 0, 6)
    shares = [patches.batch(0, 0, 6, rank, 3)[0] for rank in range(3)]
    assert torch.equal(whole, torch.stack(shares, dim=1).flatten(0, 1))


def test_validation_images_are_held_out(photos):
    patches = Patches([photos], scale=2, patch=12, validation=1)
    assert (len(patches.training), len(patches.validation)) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[model]\nblokcs = 3\n', "model.blokcs"),
        ('name = "x"\n[model]\nscale = 5\n', "model.scale"),
        ('name = "x"\n[optimizer]\nrate = -1\n', "optimizer.rate: input should be greater than 0"),
        ("seed = 1\n", "name"),
        ("name = ", "no valid TOML"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


def test_an_unknown_recipe_lists_the_built_in_ones():
    with pytest.raises(ConfigError, match=r"'edsr-x'.*edsr-s-entropy"):
        read_recipe("edsr-x")


def test_a_recipe_starts_from_the_run_beside_it(unbroken, photos, tmp_path):
    recipe = dataclasses.replace(TINY, name="next", start="tiny", optimizer=OptimizerTable(steps=1, rate=1e-12))
    with pytest.raises(ConfigError, match="next starts from tiny"):
        train(recipe, [photos], tmp_path / "next", device="cpu")
    shutil.copytree(unbroken, tmp_path / "tiny")
    trained = train(recipe, [photos], tmp_path / "next", device="cpu")
    started, ended = load(tmp_path / "tiny" / "tiny.safetensors"), load(trained.weights)
    for name, tensor in ended.state_dict().items():
        torch.testing.assert_close(tensor, started.state_dict()[name], atol=1e-9, rtol=0)
    densities = [
        torch.load(path, weights_only=True)
        for path in (tmp_path / "tiny" / "tiny.density.pt", tmp_path / "next" / "next.density.pt")
    ]
    for name, tensor in densities[0].items():
        torch.testing.assert_close(tensor, densities[1][name], atol=1e-9, rtol=0)
    assert ended.card.training["started_from"] == started.card.sha256
    assert f"tiny, sha256 `{started.card.sha256}`" in trained.weights.with_suffix(".md").read_text()


def test_weights_of_another_shape_cannot_be_started_from(unbroken, photos, tmp_path):
    start = str(unbroken / "tiny.safetensors")
    recipe = dataclasses.replace(
        TINY, start=start, model=UPSCALERS["edsr"](blocks=2, channels=6, upsampler="direct", scale=2)
    )
    with pytest.raises(ConfigError, match=r"^tiny .*tiny\.safetensors"):
        train(recipe, [photos], tmp_path, device="cpu")


def test_built_in_recipes_read_and_the_pair_differs_in_the_defence_alone():
    assert all(read_recipe(name).name == name for name in built_in_recipes())
    for name, suffix in (("edsr-s", "-stage1"), ("edsr-s", ""), ("edsr-baseline", "")):
        plain, defended = read_recipe(f"{name}{suffix}"), read_recipe(f"{name}-entropy{suffix}")
        assert plain.defence is None
        assert defended.start == plain.start.replace(name, f"{name}-entropy")
        assert dataclasses.replace(defended, name=plain.name, start=plain.start, defence=None) == plain


@pytest.mark.parametrize("name", [*built_in_models(), *built_in_scorers()])
def test_the_committed_weights_come_from_the_committed_recipe(name):
    card = load_scorer(name).card if name in built_in_scorers() else load(name).card
    recipe = read_recipe(name)
    # A recipe may have learned new keys since, with values that change nothing.
    trained = card.training["recipe"]
    if isinstance(recipe, DenoiseRecipe):  # which held the arguments of the other denoiser as well when trained
        own = dataclasses.asdict(recipe.model)
        trained = {**trained, "model": {key: value for key, value in trained["model"].items() if key in own}}
    if isinstance(recipe, ScoreRecipe):  # whose backbone is an option
        trained = {**trained, "model": {**trained["model"], "backbone": recipe.model.backbone}}
    assert pydantic.TypeAdapter(type(recipe)).validate_python(trained) == recipe
    assert card.training["steps"] == recipe.optimizer.steps
    assert card.sha256 in (Path(resolute.__file__).parent / "weights" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", [*built_in_models(), *built_in_scorers()])
def test_committed_weights_rest_on_committed_weights(name):
    """A denoiser trained with a metric was trained with the one that is committed."""
    metric = (load_scorer(name).card if name in built_in_scorers() else load(name).card).training.get("metric")
    # Rounded to float16 since, which the card says.
    committed = load_scorer(metric["name"]).card if metric is not None else None
    assert metric is None or metric["sha256"] in (committed.sha256, committed.training.get("rounded_from"))


def test_schedules():
    halving = dataclasses.replace(TINY, optimizer=OptimizerTable(steps=10, rate=1.0, halve_every=4))
    assert [learning_rate(halving, step) for step in (0, 3, 4, 8)] == [1.0, 1.0, 0.5, 0.25]
    warm = dataclasses.replace(TINY, optimizer=OptimizerTable(steps=10, rate=1.0, warmup=4))
    assert [learning_rate(warm, step) for step in (0, 1, 3, 5)] == [0.25, 0.5, 1.0, 1.0]


@pytest.mark.slow
def test_two_processes_end_near_one(photos, tmp_path):
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        'name = "tiny"\nvalidate_every = 6\n[model]\nblocks = 1\nchannels = 6\nupsampler = "direct"\nscale = 2\n'
        "[data]\npatch = 12\nbatch = 4\nvalidation = 1\n"
        "[optimizer]\nsteps = 6\nrate = 2e-3\n"
    )
    train(read_recipe(recipe), [photos], tmp_path / "1", device="cpu")
    places = ["--data", photos, "--out", tmp_path / "2"]
    code, stderr = Typed("train", recipe, *places, "--device", "cpu", "--devices", "2").ended(200)
    assert code == 0, stderr
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def test_the_next_batch_is_cut_meanwhile():
    cut = []

    def note(step):
        cut.append(step)
        return step

    ahead = Ahead(note)
    assert [ahead.take(step) for step in range(5)] == [0, 1, 2, 3, 4]
    # Each once, and whoever goes back gets what was asked for.
    assert ahead.take(2) == 2
    assert cut[:5] == [0, 1, 2, 3, 4]
