"""Layers by name, word and pattern, and what attacks on them read."""

import pytest
import torch
from small import images, network
from torch import nn

from resolute import as_restorer
from resolute.attacks.features import layer_outputs, live_layers
from resolute.attacks.gradient import FDA
from resolute.attacks.objective import FeatureDisruption
from resolute.defences import load_defended
from resolute.errors import ConfigError
from resolute.models import load
from resolute.models.layers import find_layer, find_layers

BLOCKS = 8


def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3, padding=1))


def test_words_and_patterns_on_edsr_xs():
    model = load("edsr-xs")
    kinds = {name: type(module) for name, module in model.named_modules()}
    relus = find_layers(model, ["all-relu"])
    assert relus == find_layers(model, ["body.*.body.1"])
    assert len(relus) == len([name for name, kind in kinds.items() if kind is nn.ReLU]) > 1
    convolutions = find_layers(model, ["all-conv"])
    assert {kinds[name] for name in convolutions} <= {nn.Conv2d} | {
        kind for kind in kinds.values() if issubclass(kind, nn.Conv2d)
    }
    assert {"head.0", "body.0.body.0"} <= set(convolutions)
    assert find_layers(model) == find_layers(model, ["phi"]) == (model.feature_layer,)
    assert find_layers(model, ["head", "phi", "head"]) == ("head", "long_skip")


def test_words_on_carn_see_modules_and_not_functions():
    model = load("carn-xs")
    kinds = {name: type(module) for name, module in model.named_modules()}
    relus = find_layers(model, ["all-relu"])
    assert {kinds[name] for name in relus} == {nn.ReLU}
    assert len(relus) == sum(kind is nn.ReLU for kind in kinds.values())
    outputs = layer_outputs(model, images(1), relus)
    assert len(outputs) >= len(relus)
    assert all((output >= 0).all() for output in outputs)


def test_other_activations_count():
    model = nn.Sequential(nn.LeakyReLU(), nn.PReLU(), nn.GELU(), nn.ReLU())
    assert find_layers(model, ["all-relu"]) == ("0", "1", "3")


def test_names_inside_wrappers_need_no_prefix():
    defended = load_defended("edsr-s+mix=0.75")
    assert find_layers(defended, ["body.0.body.1"]) == ("inner.body.0.body.1",)
    assert find_layers(defended, ["inner.head"]) == ("inner.head",)
    wrapped = as_restorer(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), 2, name="own")
    assert find_layers(wrapped, ["0"]) == ("network.0",)


def test_what_is_not_there_is_answered_with_the_nearest():
    model = load("edsr-xs")
    with pytest.raises(ConfigError, match=r"'long_skp'.*long_skip"):
        find_layers(model, ["long_skp"])
    with pytest.raises(ConfigError, match=r"'tail\.\*\.relu'"):
        find_layers(model, ["tail.*.relu"])
    with pytest.raises(ConfigError, match="'all-relu'"):
        find_layers(nn.Sequential(nn.Conv2d(3, 3, 1)), ["all-relu"])
    with pytest.raises(ConfigError, match="feature layer"):
        find_layers(plain())


def test_one_layer_is_one_layer():
    model = load("edsr-xs")
    assert find_layer(model) == "long_skip"
    assert find_layer(model, "body.0.*.1") == "body.0.body.1"
    with pytest.raises(ConfigError, match="one layer"):
        find_layer(model, "all-relu")


def test_outputs_are_those_of_the_layer_whatever_comes_next_in_place():
    model, x = plain().eval(), images(1)
    (before,) = layer_outputs(model, x, ["0"])
    assert torch.equal(before, model[0](x))
    assert (before < 0).any()


def test_a_layer_that_runs_twice_has_two_outputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(self.relu(x) - 0.5)

    x = images(1)
    first, second = layer_outputs(Twice(), x, find_layers(Twice(), ["all-relu"]))
    assert torch.equal(first, x)
    assert torch.equal(second, (x - 0.5).clamp(min=0))


def test_fda_climbs_all_relus():
    model, x = network(), images(1)
    relus = find_layers(model, ["all-relu"])
    by_word = FDA(epsilon=8 / 255, steps=3, objective=FeatureDisruption(("all-relu",)))(model, x)
    by_name = FDA(epsilon=8 / 255, steps=3, objective=FeatureDisruption(relus))(model, x)
    assert torch.equal(by_word.images, by_name.images)
    assert (by_word.objective > FeatureDisruption(relus).bind(model, x)(x)).all()


def test_layers_that_do_not_run_are_left_out_of_those_found_by_a_word():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.used(x)

    x = torch.rand(1, 3, 4, 4)
    assert live_layers(Spare(), x, ["all-relu"]) == ("used",)
    assert live_layers(Spare(), x, ["*.gelu|all-conv|all-act"]) == ("used",)
    assert FeatureDisruption(layers=("all-relu",)).bind(Spare(), x)(x).shape == (1,)
    with pytest.raises(ConfigError, match="unused"):
        FeatureDisruption(layers=("used", "unused")).bind(Spare(), x)(x)
    with pytest.raises(ConfigError):
        live_layers(nn.ModuleList([Spare().unused, nn.Identity()])[1], x, ["all-relu"])
