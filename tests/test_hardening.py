import dataclasses
import json
import shutil

import pytest
import torch
from odd import FULL
from PIL import Image
from safetensors.torch import load_file
from small import four_photographs, judge_by_few_steps, network
from torch import nn

import resolute
from resolute import ConfigError, OutputError, TrainingError, load, sample_image
from resolute.defences.entropy import Entropy
from resolute.errors import CheckpointError, ImageError
from resolute.images import read_image, write_png
from resolute.models.weights import save_model
from resolute.models.wrapped import as_restorer
from resolute.report.hardening import write_hardening
from resolute.training.harden_task import HardenTask
from resolute.training.hardened import Hardening
from resolute.training.hardening import Watcher, harden
from resolute.training.judge import suite
from resolute.training.patches import Patches
from resolute.training.recipe import read_recipe

# A random network does not upscale, and is said not to.
pytestmark = pytest.mark.filterwarnings("ignore::resolute.errors.ModelWarning")

TINY = read_recipe("harden")
TINY = dataclasses.replace(
    TINY,
    minutes=0,
    clean_loss=0.0,
    checkpoint_every=3,
    validate_every=6,
    data=dataclasses.replace(TINY.data, patch=12, batch=4, validation=1),
    optimizer=dataclasses.replace(TINY.optimizer, steps=12, warmup=2, rate=1e-3),
    adversarial=dataclasses.replace(TINY.adversarial, steps=2, relative_step=0.7),
)


@pytest.fixture(autouse=True)
def weak_judge(request, monkeypatch):
    """Let most tests judge by a step or two; what the judge is worth has tests of its own."""
    if "strong" not in request.keywords:
        judge_by_few_steps(monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return four_photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """The same, of which a network trained before can learn something."""
    return four_photographs(tmp_path_factory.mktemp("larger"), 80, 100)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save({"params": network().state_dict(), "epoch": 7}, path)
    return path


def weights(path):
    return torch.load(path, weights_only=True)["params"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained_alone(checkpoint, photos, out, recipe):
    """Harden until the weights are written: the judge has no attacks, which is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resolute.training.judging.suite", lambda *_: {})
        with pytest.raises(ValueError, match="empty"):
            harden(checkpoint, photos, out, recipe=recipe)


def test_the_weights_come_back_in_the_form_in_which_they_came(checkpoint, photos, tmp_path):
    made = harden(checkpoint, photos, tmp_path / "out", recipe=TINY)
    assert made.weights == tmp_path / "out" / "mine-hardened.pth"
    content = torch.load(made.weights, weights_only=True)
    assert content["epoch"] == 7
    before, after = weights(checkpoint), weights(made.weights)
    assert {name: (t.shape, t.dtype) for name, t in before.items()} == {
        name: (t.shape, t.dtype) for name, t in after.items()
    }
    assert not same(before, after)
    model = load(made.weights)
    x, truth = (t[None] for t in (sample_image("coffee")[:, :40, :40], sample_image("coffee")[:, :80, :80]))
    assert model(x).shape == truth.shape


@pytest.mark.parametrize("methods", [["plain"], ["consistency"], ["adversarial", "entropy"], ["free"], ["jacobian"]])
def test_every_method_trains_and_resumes_to_the_same_weights(methods, checkpoint, photos, tmp_path):
    read = read_recipe("harden", methods)
    short = {} if read.consistency is None else {"consistency": dataclasses.replace(read.consistency, steps=2)}
    recipe = dataclasses.replace(
        TINY, defence=read.defence, adversarial=read.adversarial, jacobian=read.jacobian, clean_loss=5.0, **short
    )
    made = harden(checkpoint, photos, tmp_path / "whole", recipe=recipe)
    assert not same(weights(checkpoint), weights(made.weights))
    assert made.level == 4

    def stop(step, _figures):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(checkpoint, photos, tmp_path / "broken", recipe=recipe, watcher=Watcher(step=stop))
    again = tmp_path / "broken" / made.weights.name
    trained_alone(checkpoint, photos, tmp_path / "broken", recipe)
    assert same(weights(again), weights(made.weights))


OWN = """
import dataclasses
from resolute.defences.method import TwinMethod

@dataclasses.dataclass(frozen=True)
class Rolled(TwinMethod):
    weight: float = 1.0

    def twin(self, model, low, moment):
        return low.roll(1, dims=-1)

    def penalty(self, output, other, shift, distance):
        {body}

class NoMethod:
    pass
"""


def test_a_method_of_ones_own_by_its_file(checkpoint, photos, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.format(body="return self.weight * distance(output, other)"))
    (tmp_path / "failing.py").write_text(OWN.format(body="raise KeyError('nothing')"))

    def with_own(name, **fields):
        return dataclasses.replace(TINY, adversarial=None, own=({"method": f"{tmp_path}/{name}", **fields},))

    logs = []
    for weight in (0.0, 5.0):
        out = tmp_path / f"out{weight}"
        made = harden(checkpoint, photos, out, recipe=with_own("mine.py:Rolled", weight=weight))
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        logs.append([line["rolled"] for line in log if "rolled" in line])
        assert "mine.py:Rolled" in made.weights.with_suffix(".md").read_text()
        assert len(made.facts["recipe"]["own"][0]["sha256"]) == 64
    assert max(logs[0]) == 0 < min(logs[1])
    for name, fields, word in (
        ("mine.py:NoMethod", {}, "TwinMethod"),
        ("mine.py:Rolled", {"strength": 1}, "strength"),
        ("mine.py:Roled", {}, "Rolled"),
        ("failing.py:Rolled", {}, r"failing\.py.*KeyError"),
        ("mine", {}, "FILE.py:NAME"),
    ):
        with pytest.raises(ConfigError, match=word):
            harden(checkpoint, photos, tmp_path / "no", recipe=with_own(name, **fields))
    assert read_recipe("harden", ["plain", f"{tmp_path}/mine.py:Rolled"]).own[0]["method"].endswith("mine.py:Rolled")


def test_the_first_layer_is_the_first_convolution(checkpoint, photos):
    recipe = dataclasses.replace(TINY, defence=Entropy(layer="first"))
    task = HardenTask(recipe, load(checkpoint), [photos], lambda *_: None)
    assert isinstance(task.model.get_submodule(task.hardener.layers[0]), nn.Conv2d)
    assert task.hardener.layers[0].startswith("head")


def test_a_limit_on_lost_clean_psnr_is_kept_by_taking_back(larger, tmp_path):
    # A trained model at a high rate, so that something is lost.
    checkpoint = tmp_path / "mine.safetensors"
    model = load("edsr-xs")
    save_model(model, checkpoint, model.card)
    # Without attacked patches, which would weigh less on the way.
    recipe = dataclasses.replace(
        TINY, anchor=0, adversarial=None,
        optimizer=dataclasses.replace(TINY.optimizer, rate=3e-3, ema=0.5),
    )  # fmt: skip
    free = harden(checkpoint, larger, tmp_path / "free", recipe=recipe)
    limit = -free.gain("clean").mean / 4
    assert limit > 0.05
    held = harden(checkpoint, larger, tmp_path / "held", recipe=recipe, clean_loss=limit)
    assert 0 < held.facts["kept"] < 1
    assert -held.gain("clean").mean <= limit + 0.02
    assert -free.gain("clean").mean > limit
    before, after, both = (load_file(path) for path in (checkpoint, free.weights, held.weights))
    share = held.facts["kept"]
    expected = {name: torch.lerp(tensor, after[name], share) for name, tensor in before.items()}
    torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-5)
    assert f"{1 - share:.0%}" in held.sentences()[-1]
    with pytest.raises(ConfigError, match="clean"):
        harden(checkpoint, larger, tmp_path / "none", recipe=recipe, clean_loss=-1.0)


def test_what_hardens_weighs_more_while_clean_psnr_is_left(photos):
    recipe = dataclasses.replace(TINY, clean_loss=0.1)
    task = HardenTask(recipe, load("edsr-xs"), [photos], lambda *_: None)
    batch = task.batch(0, 0, 1)

    def loss():
        return task.loss(task.hardener, batch, 0, 0)[0].item()

    light = loss()
    task.hardener.eval()
    with torch.no_grad():
        rising = [task.validate()["emphasis"] for _ in range(9)]
        assert 1 < rising[0] < rising[1] < rising[-1] == rising[-2]  # nothing is lost yet, and no more is given
        attacked = loss()
        # Half of the batch is attacked: what it weighs more is what the loss goes up by.
        assert attacked > light
        for parameter in task.model.parameters():
            parameter.mul_(1.2)
        falling = [task.validate()["emphasis"] for _ in range(20)]
    assert rising[-1] > falling[0] > falling[1] > falling[-1] == falling[-2] > 0


def test_half_precision_stays_half_precision(photos, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({name: tensor.half() for name, tensor in network().state_dict().items()}, path)
    made = harden(path, photos, tmp_path / "out", recipe=TINY)
    assert {t.dtype for t in torch.load(made.weights, weights_only=True).values()} == {torch.float16}


def test_figures_pictures_card_and_page_are_left(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    made = harden(checkpoint, photos, out, recipe=TINY, epsilon=6 / 255, seed=3)
    again = Hardening.read(out)
    assert again == made
    assert made.level == 6
    assert made.facts["recipe"]["seed"] == 3
    assert [one.image for one in made.before.judged] == ["astronaut.png"]
    assert {one.image for standing in made.standings for one in standing.judged} == {"astronaut.png"}
    files = made.pictures["astronaut.png"]
    clean, attacked = (read_image(out / files["before"][what]) for what in ("clean", "attacked"))
    assert 0 < float((attacked - clean).abs().max()) * 255 <= 6.001
    assert made.weights.with_suffix(".md").read_text().count("| mine") >= 2
    page = write_hardening(out).read_text()
    assert "SR-PSNR" in made.sentences()[0 if made.improved else 1]
    for sentence in made.sentences():
        assert sentence.split(" (")[0] in page
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 6, 12]
    assert all(line["psnr_y"] > 0 and line["attacked"] > 0 for line in log)


def test_a_model_of_ones_own_is_hardened_in_a_copy(photos, tmp_path):
    model = as_restorer(network().train(), 2, name="own")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = harden(model, photos, tmp_path, recipe=TINY)
    assert same(before, model.state_dict())
    assert made.weights.name == "own-hardened.safetensors"
    written = load_file(made.weights)
    plain = network()
    plain.load_state_dict(written, strict=True)
    assert not same(written, {name.removeprefix("network."): tensor for name, tensor in before.items()})
    x = sample_image("coffee")[None, :, :20, :20]
    assert torch.allclose(made.model(x), plain(x), atol=1e-5)
    with pytest.raises(ConfigError, match="as_restorer"):
        harden(nn.Conv2d(3, 3, 1), photos, tmp_path, recipe=TINY)


@pytest.mark.strong
@pytest.mark.slow
def test_a_trained_network_is_harder_to_move(larger, tmp_path, monkeypatch):
    # One start of three: each is as strong by itself as the bounds below need.
    monkeypatch.setattr("resolute.training.judging.suite", lambda *given: suite(*given[:2], restarts=1))
    monkeypatch.setattr("resolute.training.hardening._VALIDATIONS", 2)
    recipe = dataclasses.replace(
        TINY,
        validate_every=40,
        optimizer=dataclasses.replace(TINY.optimizer, steps=40, rate=2e-4),
        adversarial=dataclasses.replace(TINY.adversarial, steps=5, relative_step=0.35),
    )
    made = resolute.harden("edsr-xs", larger, tmp_path, recipe=recipe)
    assert made.improved
    assert made.gain("kept").mean > 1
    assert made.gain("truth").mean > 0.1
    assert made.gain("clean").mean > -1.5
    # The mixture is the baseline of equal clean PSNR.
    assert abs(made.mixture.clean.mean - made.after.clean.mean) < 0.02
    assert made.bicubic.kept.mean > made.before.kept.mean


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    save_network(folder / "mine.pth")
    trained_alone(folder / "mine.pth", photos, folder / "out", TINY)
    return folder


def save_network(path):
    torch.save({"params": network().state_dict(), "epoch": 7}, path)


# Before the first checkpoint, at one, and between the last one and the end.
@pytest.mark.parametrize("moment", [0, 1, 3, 7, 11] if FULL else [1, 3, 11])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(moment, photos, unbroken, tmp_path):
    def interrupt(step, _figures):
        if step == moment:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        harden(unbroken / "mine.pth", photos, out, recipe=TINY, watcher=Watcher(step=interrupt))
    trained_alone(unbroken / "mine.pth", photos, out, TINY)
    assert same(*(weights(folder / "mine-hardened.pth") for folder in (out, unbroken / "out")))


def test_judging_goes_on_where_it_was_stopped(checkpoint, photos, tmp_path):
    told = []

    def interrupt(done, _total, what):
        told.append(what)
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(checkpoint, photos, tmp_path / "out", recipe=TINY, watcher=Watcher(judged=interrupt))
    kept = json.loads((tmp_path / "out" / "judged.json").read_text())
    assert len(kept) == 2
    assert "attacking" not in told[0]
    made = harden(checkpoint, photos, tmp_path / "out", recipe=TINY)
    fresh = harden(checkpoint, photos, tmp_path / "fresh", recipe=TINY)
    assert made.standings == fresh.standings


def test_minutes_become_steps_once(checkpoint, photos, tmp_path):
    recipe = dataclasses.replace(TINY, minutes=0.02)
    planned = []
    for _ in range(2):
        harden(
            checkpoint, photos, tmp_path / "out", recipe=recipe, watcher=Watcher(planned=lambda r, _: planned.append(r))
        )
    assert planned[0] == planned[1]
    assert planned[0].optimizer.steps >= 1
    assert planned[0].minutes == 0


def test_a_folder_holds_one_run(checkpoint, photos, tmp_path):
    harden(checkpoint, photos, tmp_path / "out", recipe=TINY)
    with pytest.raises(ConfigError, match="seed"):
        harden(checkpoint, photos, tmp_path / "out", recipe=TINY, seed=1)


def test_images_can_be_named_for_judging(checkpoint, photos, tmp_path):
    folder = tmp_path / "test"
    for name in ("chelsea", "coffee"):
        write_png(folder / f"{name}.png", sample_image(name)[:, :64, :72])
    made = harden(checkpoint, photos, tmp_path / "out", recipe=TINY, test=folder)
    assert [one.image for one in made.after.judged] == ["chelsea.png", "coffee.png"]
    assert "Square" not in made.before.attacks
    assert {"Square", "transfer from the undefended"} < set(made.after.attacks)
    assert set(made.bicubic.attacks) == {"APGD", "PGD on the truth"}


def test_batch_norm_stays_as_it_is(photos, tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.Dropout(0.5)

        def forward(self, x):
            return nn.functional.pixel_shuffle(self.drop(self.norm(self.conv(x))), 2)

    path = tmp_path / "normed.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Normed()
    module.norm.running_mean.fill_(0.1)
    model = as_restorer(module, 2, name="normed")
    statistics = model.state_dict()
    made = harden(model, photos, tmp_path / "out", recipe=TINY)
    hardened = resolute.models.weights.read_weights(made.weights)[0]
    (name,) = [key for key in hardened if key.endswith("norm.running_mean")]
    assert torch.equal(hardened[name], statistics[f"network.{name}"])
    assert not path.exists()


def test_a_result_that_is_no_better_is_said_first(checkpoint, larger, tmp_path):
    recipe = dataclasses.replace(TINY, optimizer=dataclasses.replace(TINY.optimizer, steps=3, warmup=0, rate=0.02))
    made = harden(checkpoint, larger, tmp_path / "out", recipe=recipe)
    assert not made.improved
    assert "not help" in made.sentences()[0]


def test_nan_keeps_the_last_good_weights(checkpoint, photos, tmp_path, monkeypatch):
    good = Patches.batch

    def poisoned(self, seed, step, size, rank=0, ranks=1):
        low, high = good(self, seed, step, size, rank, ranks)
        return low, high * torch.nan if step == 8 else high

    monkeypatch.setattr(Patches, "batch", poisoned)
    with pytest.raises(TrainingError, match="step 6"):
        harden(checkpoint, photos, tmp_path / "out", recipe=TINY)
    kept = weights(tmp_path / "out" / "mine-hardened.pth")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert not same(kept, weights(checkpoint))


def test_what_cannot_be_hardened_is_refused_before_training(photos, tmp_path, checkpoint):
    with pytest.raises(ConfigError, match="weights"):
        harden("bicubic", photos, tmp_path / "a", recipe=TINY)
    with pytest.raises(ConfigError, match="defence"):
        harden("edsr-xs+mix=0.5", photos, tmp_path / "b", recipe=TINY)
    frozen = as_restorer(network().requires_grad_(False), 2, name="frozen")
    with pytest.raises(ConfigError, match="requires_grad"):
        harden(frozen, photos, tmp_path / "c", recipe=TINY)
    for wrong in (
        {"epsilon": 0.5 / 255},
        {"epsilon": 0.0},
        {"minutes": 0.0},
        {"minutes": float("nan")},
        {"steps": 0},
        {"share": 0.0},
    ):
        with pytest.raises((ConfigError, ValueError)):
            harden(checkpoint, photos, tmp_path / "d", recipe=TINY, **wrong)
    with pytest.raises(ConfigError, match="train"):
        harden(checkpoint, photos, tmp_path / "e", recipe="edsr-s")
    assert not any((tmp_path / name).exists() for name in "abcde")


def test_photographs_too_few_or_too_small_are_named(checkpoint, photos, tmp_path):
    with pytest.raises(ConfigError, match="two"):
        harden(checkpoint, photos / "coffee.png", tmp_path / "out", recipe=TINY)
    small = tmp_path / "small"
    for index in range(3):
        write_png(small / f"{index}.png", torch.rand(3, 20, 20))
    read = []
    with pytest.raises(ConfigError, match="24 pixels"):
        harden(checkpoint, small, tmp_path / "out", recipe=TINY, watcher=Watcher(read=lambda *step: read.append(step)))
    # By their heads, before any is read.
    assert read == []
    shutil.copy(photos / "coffee.png", small / "3.png")
    with pytest.raises(ConfigError, match="1 of the 4"):
        harden(checkpoint, small, tmp_path / "out", recipe=TINY)
    with pytest.raises(ImageError):
        harden(checkpoint, tmp_path / "nothing", tmp_path / "out", recipe=TINY)
    (small / "0.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0\.png"):
        harden(checkpoint, small, tmp_path / "out", recipe=TINY)


def test_large_photographs_are_cut_and_many_left_out(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "large"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (1500, 1100), (index, 90, 30)).save(folder / f"{index}.png")
    seen = []
    monkeypatch.setattr("resolute.training.hardening._PIXELS", 2_200_000)
    monkeypatch.setattr(
        "resolute.training.hardening.HardenTask",
        lambda _recipe, _model, files, *_rest, **_more: seen.append(files) or (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        harden(checkpoint, folder, tmp_path / "out", recipe=TINY)
    assert len(seen[0]) == 2
    patches = Patches(seen[0], 2, 12, largest=1024)
    assert patches.training[0][1].shape == (1024, 1024, 3)


def test_a_folder_that_cannot_be_written_is_named(checkpoint, photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        harden(checkpoint, photos, tmp_path / "file" / "out", recipe=TINY)


def test_a_damaged_result_is_named(tmp_path):
    with pytest.raises(ConfigError, match="harden"):
        Hardening.read(tmp_path)
    (tmp_path / "harden.json").write_text('{"name": 3}')
    with pytest.raises(ConfigError, match="damaged"):
        Hardening.read(tmp_path)


def test_onnx_is_refused(photos, tmp_path):
    pytest.importorskip("onnx")
    from resolute.export import export

    model = network()
    save_model(model, tmp_path / "n.safetensors", resolute.Card(name="n", architecture=model.arguments(), scale=2))
    export(load(tmp_path / "n.safetensors"), tmp_path / "n.onnx")
    with pytest.raises(CheckpointError, match="PyTorch"):
        harden(tmp_path / "n.onnx", photos, tmp_path / "out", recipe=TINY)


def test_two_runs_do_not_share_a_folder(checkpoint, photos, tmp_path):
    def second(_recipe, _seconds):
        with pytest.raises(ConfigError, match="another process"):
            harden(checkpoint, photos, tmp_path / "out", recipe=TINY)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(checkpoint, photos, tmp_path / "out", recipe=TINY, watcher=Watcher(planned=second))
    harden(checkpoint, photos, tmp_path / "out", recipe=TINY)


def test_photographs_of_equal_names_are_told_apart(checkpoint, photos, tmp_path):
    for name in ("a", "b", "c"):
        write_png(tmp_path / name / "1.png", read_image(photos / "coffee.png").roll(len(name)))
    folders = [tmp_path / name for name in ("a", "b", "c")]
    recipe = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, validation=5))
    made = harden(checkpoint, folders, tmp_path / "out", recipe=recipe)
    assert len(made.after.judged) == 1
    made = harden(checkpoint, photos, tmp_path / "other", recipe=TINY, test=folders)
    assert len(made.pictures) == 3


def test_a_network_of_one_colour_is_no_success(photos, tmp_path):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.01))

        def forward(self, x):
            return 0.5 + self.gain * nn.functional.interpolate(x, scale_factor=2.0)

    made = harden(as_restorer(Flat(), 2, name="flat"), photos, tmp_path / "out", recipe=TINY)
    assert Hardening.read(tmp_path / "out") == made
    assert made.after.kept.mean <= 100


def test_tiny_weights_train_slowly(checkpoint, photos):
    model = load(checkpoint)
    with torch.no_grad():
        model.head[0].weight.mul_(1e-5 / model.head[0].weight.square().mean().sqrt())
        model.body[0].body[0].weight.zero_()
    task = HardenTask(TINY, model, [photos], lambda *_: None)
    assert task.paces == {"head.0.weight": pytest.approx(0.01, rel=1e-3)}


class Merged(nn.Module):
    """Weights of very different sizes, as branches leave them that were merged for use."""

    def __init__(self):
        super().__init__()
        self.wide, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.tail = nn.Conv2d(8, 12, 3, padding=1)
        for layer, factor in ((self.wide, 1e5), (self.gate, 1e-4), (self.tail, 1e-6)):
            layer.weight.data *= factor

    def forward(self, x):
        y = self.wide(x)
        y = self.tail(y * self.gate(y).sigmoid())
        return nn.functional.interpolate(x, scale_factor=2, mode="bicubic") + nn.functional.pixel_shuffle(y, 2)


def test_a_merged_network_is_not_destroyed_by_the_first_steps(photos, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = as_restorer(Merged(), scale=2)
    made = harden(model, photos, tmp_path, recipe=TINY)
    assert made.gain("clean").mean > -0.5


def test_a_training_that_diverges_with_a_finite_loss_is_said(photos, tmp_path):
    recipe = dataclasses.replace(TINY, optimizer=dataclasses.replace(TINY.optimizer, rate=0.3, clip=1e-3))
    with pytest.raises(TrainingError, match=r"diverged.*optimizer\.rate"):
        harden("edsr-xs", photos, tmp_path, recipe=recipe)
    assert not list(tmp_path.glob("*-hardened.*"))
