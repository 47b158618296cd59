import math

import pytest
import torch
from torch import nn

from resolute.attacks.features import layer_outputs
from resolute.attacks.objective import FeatureDisruption, FeatureShift, OutputShift
from resolute.errors import ConfigError
from resolute.models import EDSR, Bicubic
from resolute.models.layers import find_layers

OBJECTIVES = [OutputShift(), FeatureShift(), FeatureDisruption(), FeatureDisruption(mask="attacked")]


def network(seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EDSR(**{"scale": 2, "blocks": 2, "channels": 6, **sizes}).eval()


def uniform(seed, *shape, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(bound, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(bound(x).sum(), x)[0]


@pytest.fixture
def plain():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1)).eval()


@pytest.mark.parametrize("objective", [OutputShift(), FeatureShift()])
def test_a_distance_is_exactly_flat_at_the_clean_image(objective):
    model, x = network().double(), uniform(0, 2, 3, 6, 5, dtype=torch.float64)
    bound = objective.bind(model, x)
    assert torch.equal(bound(x), torch.zeros(2))
    assert torch.equal(gradient(bound, x), torch.zeros_like(x))
    assert (gradient(bound, x + 1e-6 * uniform(1, 2, 3, 6, 5, dtype=torch.float64)) != 0).any()


def test_feature_disruption_is_not_flat_at_the_clean_image():
    model, x = network(), uniform(0, 1, 3, 6, 5)
    assert (gradient(FeatureDisruption().bind(model, x), x) != 0).double().mean() > 0.9


def test_output_shift_is_the_mean_square_of_eq_14():
    model, clean, attacked = network(), uniform(0, 2, 3, 6, 5), uniform(1, 2, 3, 6, 5)
    before, after = model(clean).detach().numpy(), model(attacked).detach().numpy()
    expected = [((a - b) ** 2).sum() / a.size for a, b in zip(after, before, strict=True)]
    assert OutputShift().bind(model, clean)(attacked).tolist() == pytest.approx(expected, rel=1e-5)


def test_feature_shift_is_the_mean_square_at_each_layer_and_their_sum():
    model, clean, attacked = network(), uniform(0, 2, 3, 6, 5), uniform(1, 2, 3, 6, 5)
    distance = (model.features(attacked) - model.features(clean)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(FeatureShift().bind(model, clean)(attacked), distance)
    head = (model.head(model.sub_mean(attacked * 255)) - model.head(model.sub_mean(clean * 255))).square()
    both = FeatureShift(("head", "long_skip")).bind(model, clean)(attacked)
    torch.testing.assert_close(both, distance + head.mean(dim=(1, 2, 3)))


def slow_disruption(mask_features, features):
    """Eq. 13 of one image, position by position and channel by channel."""
    channels, height, width = features.shape
    low = high = 0.0
    for i in range(height):
        for j in range(width):
            mean = sum(float(mask_features[c, i, j]) for c in range(channels)) / channels
            for c in range(channels):
                square = float(features[c, i, j]) ** 2
                if float(mask_features[c, i, j]) < mean:
                    low += square
                else:
                    high += square
    return math.log(math.sqrt(low)) - math.log(math.sqrt(high))


@pytest.mark.parametrize("mask", ["clean", "attacked"])
def test_feature_disruption_is_eq_13(mask):
    model, clean, attacked = network(), uniform(0, 2, 3, 5, 4), uniform(1, 2, 3, 5, 4)
    before, after = model.features(clean).detach(), model.features(attacked).detach()
    source = before if mask == "clean" else after
    expected = [slow_disruption(s, a) for s, a in zip(source, after, strict=True)]
    assert FeatureDisruption(mask=mask).bind(model, clean)(attacked).tolist() == pytest.approx(expected, rel=1e-5)
    other = after if mask == "clean" else before
    assert expected != pytest.approx([slow_disruption(s, a) for s, a in zip(other, after, strict=True)], rel=1e-3)


def test_feature_disruption_of_several_layers_is_their_mean():
    model, clean, attacked = network(), uniform(0, 2, 3, 5, 4), uniform(1, 2, 3, 5, 4)
    names = ("head", "body.0", "body.1.body.1")
    single = [FeatureDisruption((name,)).bind(model, clean)(attacked) for name in names]
    torch.testing.assert_close(FeatureDisruption(names).bind(model, clean)(attacked), torch.stack(single).mean(dim=0))


def test_feature_disruption_is_finite_where_features_vanish():
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = uniform(0, 1, 3, 5, 4)
    bound = FeatureDisruption().bind(model, x)
    assert bound(x).isfinite().all()
    assert gradient(bound, x).isfinite().all()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_an_image_is_not_judged_by_its_neighbours(objective):
    model = network().double()
    clean, attacked = uniform(0, 3, 3, 6, 5, dtype=torch.float64), uniform(1, 3, 3, 6, 5, dtype=torch.float64)
    together = objective.bind(model, clean)
    alone = objective.bind(model, clean[1:2])
    torch.testing.assert_close(together(attacked)[1:2], alone(attacked[1:2]))
    torch.testing.assert_close(gradient(together, attacked)[1:2], gradient(alone, attacked[1:2]))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_objectives_are_values_that_a_record_can_name(objective):
    assert eval(repr(objective)) == objective
    assert hash(objective) == hash(eval(repr(objective)))


def test_layers_of_any_module_can_be_named(plain):
    clean, attacked = uniform(0, 1, 3, 5, 4), uniform(1, 1, 3, 5, 4)
    expected = (plain[:2](attacked) - plain[:2](clean)).square().mean()
    torch.testing.assert_close(FeatureShift(("1",)).bind(plain, clean)(attacked), expected.view(1))
    before, after = (plain[0](x).detach()[0] for x in (clean, attacked))
    value = FeatureDisruption(("0",)).bind(plain, clean)(attacked)
    assert value.item() == pytest.approx(slow_disruption(before, after), rel=1e-5)


@pytest.mark.parametrize("objective", [FeatureShift, FeatureDisruption])
def test_a_module_without_feature_layer_asks_for_names(plain, objective):
    with pytest.raises(ValueError, match="layers="):
        objective().bind(plain, uniform(0, 1, 3, 5, 4))


@pytest.mark.parametrize("objective", [FeatureShift, FeatureDisruption])
def test_an_unknown_layer_is_answered_with_the_known_ones(plain, objective):
    with pytest.raises(ValueError, match=r"'tale'.* 0, 1, 2$"):
        objective(("1", "tale")).bind(plain, uniform(0, 1, 3, 5, 4))


def test_the_feature_layer_is_what_enters_the_upsampler():
    model, x = network(), uniform(0, 2, 3, 6, 5)
    assert find_layers(model, ()) == ("long_skip",)
    entered = []
    handle = model.tail.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0]))
    model(x)
    handle.remove()
    assert torch.equal(layer_outputs(model, x, ("long_skip",))[0], entered[0])
    assert find_layers(Bicubic(scale=2), ()) == ("image",)
    assert torch.equal(layer_outputs(Bicubic(scale=2), x, ("image",))[0], x)


def test_layers_come_in_the_order_asked_for():
    model, x = network(), uniform(0, 1, 3, 6, 5)
    body, head = layer_outputs(model, x, ("body", "head"))
    torch.testing.assert_close(head, model.head(model.sub_mean(x * 255)))
    torch.testing.assert_close(body, model.body(head))


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_reading_layers_leaves_no_hook_behind(plain):
    layer_outputs(plain, uniform(0, 1, 3, 5, 4), ("0", "1"))
    assert hooks(plain) == 0
    with pytest.raises(RuntimeError):
        layer_outputs(plain, uniform(0, 1, 4, 5, 4), ("0", "1"))
    assert hooks(plain) == 0


def test_a_layer_that_does_not_run_is_an_error():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.used(x)

    model = Idle()
    with pytest.raises(ConfigError, match="'unused'"):
        FeatureShift(("unused",)).bind(model, uniform(0, 1, 3, 5, 4))
    assert hooks(model) == 0
