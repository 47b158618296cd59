import copy

import pytest
import torch
from small import network
from torch import nn

from resolute import ConfigError, load_defended
from resolute.images import sample_image
from resolute.models.forms import FORMS, InForm


@pytest.fixture(scope="module")
def model():
    return network(channels=8)


@pytest.fixture(scope="module")
def x():
    return sample_image("coffee")[None, :, 100:124, 100:124]


@pytest.mark.parametrize(("form", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_half_precision_is_that_of_torch(model, x, form, dtype):
    cast = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        assert torch.equal(InForm(model, form)(x), cast(x.to(dtype)).float())
        assert (InForm(model, form).emulated()(x) - InForm(model, form)(x)).abs().max() < 0.02
    assert next(model.parameters()).dtype == torch.float32


def test_eight_bits_are_255_levels_a_channel(model):
    made = InForm(model, "int8")
    for before, after in zip(model.modules(), made.inner.modules(), strict=True):
        if isinstance(before, nn.Conv2d):
            steps = before.weight.detach().flatten(1).abs().amax(1) / 127
            levels = after.weight.detach().flatten(1) / steps[:, None]
            assert torch.allclose(levels, levels.round(), atol=1e-3)
            assert levels.abs().max() <= 127.001
            assert (after.weight - before.weight).flatten(1).abs().amax(1).le(steps / 2 + 1e-7).all()


@pytest.mark.parametrize("form", FORMS)
def test_halves_meet_and_gradients_pass(model, x, form):
    made = InForm(model, form)
    with torch.no_grad():
        assert torch.allclose(made.reconstruct(made.features(x)), made(x), atol=1e-2)
    images = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(made.emulated()(images).square().sum(), images)
    assert gradient.abs().max() > 0


def test_addresses_name_forms(x):
    made = load_defended("edsr-xs+as=bfloat16")
    assert made.card.name == "edsr-xs+as=bfloat16"
    assert made.card.sha256 != load_defended("edsr-xs").card.sha256 != load_defended("edsr-xs+as=int8").card.sha256
    assert load_defended("edsr-xs+as=int8+mix=0.5").scale == 4
    with pytest.raises(ConfigError):
        load_defended("edsr-xs+as=float8")
