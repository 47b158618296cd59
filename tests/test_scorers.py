import dataclasses
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from resolute.errors import CheckpointError, ConfigError, ImageError
from resolute.models import (
    EDSR,
    Card,
    QualityNet,
    Scorer,
    ScorerCard,
    as_scorer,
    built_in_models,
    built_in_scorers,
    load,
    load_scorer,
    probe,
)
from resolute.models.weights import read_weights, save_model, weights_sha256


def network(seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return QualityNet(**{"widths": (6, 8), "hidden": 4, **sizes}).eval()


def images(*shape):
    return torch.rand(shape or (2, 3, 40, 36), generator=torch.Generator().manual_seed(0))


def saved(folder, metric=None, **facts):
    metric = metric or network()
    path = folder / "metric.safetensors"
    save_model(metric, path, dataclasses.replace(metric.describe("mine"), **facts))
    return path


def contrast(x):
    return x.std(dim=(1, 2, 3))


# Files.


def test_a_saved_metric_comes_back_probed(tmp_path):
    metric = network()
    path = saved(tmp_path, metric, licence="MIT", training={"steps": 3}, usual=(20.0, 80.0))
    loaded = load_scorer(path)
    assert isinstance(loaded, QualityNet)
    assert not loaded.training
    torch.testing.assert_close(loaded(images()), metric(images()))
    card = loaded.card
    assert (card.name, card.low, card.high, card.smallest, card.licence) == ("mine", 0, 100, 32, "MIT")
    assert card.usual == (20.0, 80.0)
    assert card.training == {"steps": 3}
    assert card.sha256 == weights_sha256(metric.state_dict())
    assert card.architecture["class"] == "QualityNet"
    assert (card.batch_invariant, card.deterministic, card.differentiable) == (True, True, True)
    assert card.batch_gap < 1e-3


def test_a_plain_checkpoint_is_recognised(tmp_path):
    metric = network(hidden=0, low=1.0, high=5.0, blocks=2)
    torch.save({"state_dict": metric.state_dict()}, tmp_path / "theirs.pth")
    loaded = load_scorer(tmp_path / "theirs.pth")
    assert loaded.arguments() == metric.arguments()
    assert (loaded.card.name, loaded.card.low, loaded.card.high) == ("theirs", 1, 5)


def test_the_two_loaders_send_to_each_other(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(CheckpointError, match="load_scorer"):
        load(path)
    model = EDSR(scale=2, blocks=1, channels=4)
    save_model(model, tmp_path / "sr.safetensors", Card(name="sr", architecture=model.arguments(), scale=2))
    for name in (tmp_path / "sr.safetensors", "edsr-s"):
        with pytest.raises(CheckpointError, match=r"with load$"):
            load_scorer(name)


def test_built_in_names_are_kept_apart(tmp_path, monkeypatch):
    saved(tmp_path / "weights")
    model = EDSR(scale=2, blocks=1, channels=4)
    save_model(model, tmp_path / "weights" / "sr.safetensors", Card(name="sr", architecture={}, scale=2))
    monkeypatch.setattr("resolute.shipped.WEIGHTS", tmp_path / "weights")
    assert list(built_in_models()) == ["sr"]
    assert list(built_in_scorers()) == ["metric"]
    assert load_scorer("metric").card.name == "mine"
    with pytest.raises(CheckpointError, match="load_scorer"):
        load("metric")


def test_every_built_in_metric_loads():
    for name, path in built_in_scorers().items():
        metric = load_scorer(name)
        assert metric.card.name == name
        assert metric.card.batch_invariant
        assert torch.equal(load_scorer(path)(images()), metric(images()))


def test_files_of_restorers_carry_no_kind():
    """The weights that are published already have none, and their format stays."""
    for path in built_in_models().values():
        assert isinstance(read_weights(path)[1], Card)


@pytest.mark.parametrize("name", ["quality", "no/such/folder", "."])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(CheckpointError, match=re.escape(repr(name))) as caught:
        load_scorer(name)
    assert all(known in str(caught.value) for known in [*built_in_scorers(), "pyiqa:NAME"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.score.bias"), "looks like QualityNet but does not fit it: .*head.score.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "Unexpected key"),
        (lambda state: state.update({"head.range": torch.tensor([5.0, 1.0])}), "low is below high"),
        (lambda state: state.update({"head.range": torch.tensor([5.0])}), "does not fit"),
        (lambda state: state.pop("stem.weight"), "no known quality metric has its"),
        (lambda state: state["stem.bias"].fill_(torch.nan), "stem.bias is not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    state = network().state_dict()
    change(state)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=message):
        load_scorer(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0"}, "does not match the sha256 on its card"),
        ({"high": 10.0}, "does not match the range on its card"),
        ({"lower_better": True}, "does not match the range on its card"),
        ({"usual": 3}, "carries a damaged model card"),
        ({"colour": 3}, "carries a damaged model card"),
    ],
)
def test_a_card_that_does_not_match_is_refused(tmp_path, change, message):
    path = saved(tmp_path)
    card = {**vars(read_weights(path)[1]), **change}
    save_file(load_file(path), path, {"card": json.dumps(card), "kind": "scorer"})
    with pytest.raises(CheckpointError, match=message):
        load_scorer(path)


def test_a_kind_from_the_future_is_refused(tmp_path):
    save_file(network().state_dict(), tmp_path / "net.safetensors", {"card": "{}", "kind": "hologram"})
    with pytest.raises(CheckpointError, match="'hologram'"):
        load_scorer(tmp_path / "net.safetensors")


# Callables.


def test_a_function_becomes_a_metric():
    metric = as_scorer(contrast, "contrast", low=0.0, high=0.5, licence="mine")
    assert isinstance(metric, Scorer)
    torch.testing.assert_close(metric(images()), contrast(images()))
    card = metric.card
    assert (card.name, card.low, card.high, card.lower_better, card.licence) == ("contrast", 0, 0.5, False, "mine")
    assert (card.batch_invariant, card.deterministic, card.differentiable) == (True, True, True)
    assert card.sha256 == ""


@pytest.mark.parametrize(
    ("function", "single"),
    [
        (lambda x: contrast(x)[:, None], False),
        (lambda x: contrast(x)[:, None, None, None], False),
        (lambda image: image.std(), True),
        (lambda image: image.std().reshape(1, 1), True),
        (lambda image: contrast(image[None]), True),
    ],
)
def test_shapes_of_scores_that_are_understood(function, single):
    metric = as_scorer(function, "contrast", single=single, lower_better=True)
    torch.testing.assert_close(metric(images()), contrast(images()))
    torch.testing.assert_close(metric(images()[:1]), contrast(images()[:1]))
    assert metric.card.differentiable
    assert metric.card.lower_better


def test_numbers_without_a_gradient_are_called_so():
    metric = as_scorer(lambda image: float(image.numpy().mean()), "numpy", single=True)
    assert metric.card.differentiable is False
    assert metric(images()).shape == (2,)
    assert as_scorer(lambda x: contrast(x).round(decimals=1), "steps").card.differentiable is False


def test_scores_are_clamped_to_the_range_that_is_promised():
    metric = as_scorer(lambda x: 1000 * contrast(x) - 100, "wild", low=-1.0, high=1.0)
    assert metric(images()).abs().max() <= 1
    metric = as_scorer(lambda x: contrast(x) - 10, "half", low=0.0)
    assert metric(images()).min() == 0
    assert metric.card.high is None


def test_a_module_stays_a_module():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 4, 4)
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(self.conv(x)).mean(dim=(1, 2, 3))

    function = Learned()
    metric = as_scorer(function, "learned")
    assert len(list(metric.parameters())) == 2
    assert metric.card.sha256 == weights_sha256(function.state_dict())
    assert not function.training
    assert metric.card.deterministic


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean(), "returns \\(\\) for 3 images, not one score an image"),
        (lambda x: x.mean(dim=(2, 3)), "returns \\(3, 3\\) for 3 images"),
        (lambda x: contrast(x) / 0, "returns \\[inf, inf, inf\\]"),
        (lambda x: x @ x.new_zeros(2, 2), "fails on images of shape \\(3, 3, 128, 128\\): RuntimeError"),
    ],
)
def test_callables_that_are_no_metric_are_refused(function, message, unchecked_shapes):
    with pytest.raises(ConfigError, match=message):
        as_scorer(function, "odd")


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"low .*high"):
        as_scorer(contrast, "contrast", low=1.0, high=1.0)


def test_images_that_are_too_small_are_refused():
    metric = as_scorer(contrast, "contrast", smallest=200)
    with pytest.raises(ImageError, match=r"200 .*36 x 40"):
        metric(images())


# The probe.


def test_neighbours_that_matter_are_noticed():
    card = as_scorer(lambda x: contrast(x) + contrast(x).mean(), "batch norm").card
    assert card.batch_invariant is False
    assert card.batch_gap > 1e-3
    assert card.deterministic


def test_chance_is_noticed_and_the_random_state_kept():
    def crops(x):
        i = int(torch.randint(x.shape[-1] - 16, ()))
        return contrast(x[..., i : i + 16])

    torch.manual_seed(3)
    before = torch.get_rng_state()
    card = as_scorer(crops, "crops").card
    assert card.deterministic is False
    assert card.batch_invariant is False
    assert torch.equal(torch.get_rng_state(), before)


def test_the_probe_leaves_the_metric_as_it_was():
    metric = network().train()
    metric.head.eval()
    before = {name: module.training for name, module in metric.named_modules()}
    card = probe(metric)
    assert {name: module.training for name, module in metric.named_modules()} == before
    assert all(parameter.grad is None for parameter in metric.parameters())
    assert metric.card is None
    assert card.name == "QualityNet"


def test_a_saturated_metric_has_no_gradient():
    metric = network()
    with torch.no_grad():
        metric.head.score.bias.fill_(1000.0)
    assert probe(metric).differentiable is False


def test_a_range_that_does_not_hold_is_refused():
    metric = network()
    with pytest.raises(ConfigError, match=r"\[99\.0, 100\.0\]"):
        probe(metric, dataclasses.replace(metric.describe("mine"), low=99.0))


def test_a_card_from_declared_facts():
    card = network(low=1.0, high=5.0).describe("mine", training={"steps": 1})
    assert card == ScorerCard(
        name="mine",
        architecture={"class": "QualityNet", "widths": (6, 8), "blocks": 1, "hidden": 4, "low": 1.0, "high": 5.0},
        low=1.0,
        high=5.0,
        smallest=32,
        training={"steps": 1},
    )
