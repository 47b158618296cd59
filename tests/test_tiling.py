import dataclasses
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import images, network
from torch import nn
from torch.nn import functional as F

from resolute.attacks.gradient import FDA, IFGSM
from resolute.errors import ConfigError
from resolute.models import CARN, EDSR, MSRN, RCAN, Bicubic, SRResNet, load
from resolute.models.base import SplitRestorer
from resolute.models.denoisers import DnCNN, UNet
from resolute.models.receptive import receptive_radius
from resolute.models.tiling import Tiled


def photo(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def build(kind, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(**arguments).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
    return model


class Pooled(SplitRestorer):
    """Brightness of the whole image, added to every pixel."""

    feature_layer = "image"

    def __init__(self):
        super().__init__(2)
        self.image = nn.Identity()

    def arguments(self):
        return {"class": "Pooled"}

    def features(self, x):
        return self.image(x + 0.1 * x.mean(dim=(2, 3), keepdim=True))

    def reconstruct(self, phi):
        return F.interpolate(phi, scale_factor=2, mode="nearest")


# How far a model looks.


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_convolution_looks_half_its_kernel_far(size, dilation):
    reach = dilation * (size // 2)
    convolution = nn.Conv2d(3, 2, size, padding=reach, dilation=dilation)
    assert receptive_radius(convolution) == reach


def test_a_lopsided_kernel_looks_as_far_as_its_longer_side():
    assert receptive_radius(lambda x: x + F.pad(x[..., 5:], (0, 5))) == 5
    assert receptive_radius(lambda x: x + F.pad(x[..., :-5, :], (0, 0, 5, 0))) == 5


@given(blocks=st.integers(1, 3), channels=st.integers(2, 5), upsampler=st.sampled_from(["staged", "direct"]))
@settings(max_examples=8, deadline=None)
def test_an_edsr_looks_one_pixel_further_a_convolution(blocks, channels, upsampler):
    model = build(EDSR, scale=4, blocks=blocks, channels=channels, upsampler=upsampler)
    assert receptive_radius(model.features) == 2 * blocks + 2
    # At scale 4 staged: one pixel, half a pixel and a quarter.
    assert receptive_radius(model.reconstruct, channels) == (2 if upsampler == "staged" else 1)


def test_dead_units_hide_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 5, padding=2))
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
    x = photo(9, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert not gradient.any()
    assert receptive_radius(model) == 3


def test_a_dense_matrix_with_zeros_is_seen_through():
    assert receptive_radius(Bicubic(4)) == 2


def test_pooling_and_attention_have_no_radius():
    assert receptive_radius(Pooled()) is None
    assert receptive_radius(build(RCAN, scale=2, groups=1, blocks=1, channels=8, reduction=4).features) is None


def test_the_search_ends_where_it_is_told():
    def far(x):
        return F.avg_pool2d(x, (1, 201), stride=1, padding=(0, 100))

    assert receptive_radius(far, largest=64) is None
    assert receptive_radius(far, largest=128) == 100


def test_what_a_constant_looks_at_is_nothing():
    assert receptive_radius(lambda x: x * 0 + 1) == 0


# Tiles.

EACH = [
    (EDSR, {"scale": 4, "blocks": 2, "channels": 4}),
    (EDSR, {"scale": 3, "blocks": 1, "channels": 4, "upsampler": "direct"}),
    (CARN, {"scale": 2, "channels": 8, "group": 4}),
    (MSRN, {"scale": 2, "blocks": 2, "channels": 4}),
    (SRResNet, {"scale": 2, "blocks": 2, "channels": 4}),
    (DnCNN, {"depth": 4, "channels": 4}),
    (UNet, {"widths": (4, 6, 8)}),
    (Bicubic, {"scale": 4}),
]
each_model = pytest.mark.parametrize(("kind", "arguments"), EACH, ids=lambda part: getattr(part, "__name__", ""))


@each_model
def test_tiles_make_the_same_image(kind, arguments):
    model = build(kind, **arguments)
    tiled = Tiled(model, tile=16)
    for height, width in ((67, 50), (16, 33), (16, 16), (81, 15)):
        x = photo(height, width)
        with torch.no_grad():
            torch.testing.assert_close(tiled(x), model(x), rtol=0, atol=2e-6)
            torch.testing.assert_close(tiled.features(x), model.features(x), rtol=1e-4, atol=1e-3)


@each_model
def test_tiles_have_the_same_gradient(kind, arguments):
    model = build(kind, **arguments).double()
    weights = torch.randn(model(photo(61, 40).double()).shape, generator=torch.Generator().manual_seed(1)).double()
    gradients = []
    for restorer in (model, Tiled(model, tile=16)):
        x = photo(61, 40).double().requires_grad_()
        # No sum over pixels: tiles do not depend on the objective.
        (gradient,) = torch.autograd.grad((restorer(x) * weights).square().sum().sqrt(), x)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.sampled_from([16, 32, 48]))
@settings(max_examples=20, deadline=None)
def test_tiles_make_the_same_image_at_every_size(height, width, tile):
    model = network()
    x = photo(height, width)
    with torch.no_grad():
        torch.testing.assert_close(Tiled(model, tile=tile)(x), model(x), rtol=0, atol=1e-5)


def test_a_halo_too_small_changes_the_image():
    model = network()
    x = photo(48, 48)
    with torch.no_grad():
        assert (Tiled(model, tile=16, halo=0)(x) - model(x)).abs().max() > 1e-3


@pytest.mark.parametrize("attack", [IFGSM(epsilon=4 / 255, steps=3), FDA(epsilon=4 / 255, steps=3)])
def test_an_attack_through_tiles_is_the_attack(attack):
    model, x = network().double(), images(2, 40, 37).double()
    expected, found = attack(model, x), attack(Tiled(model, tile=16), x)
    torch.testing.assert_close(found.unrounded, expected.unrounded, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.objective, expected.objective)


def test_tiles_are_computed_again_instead_of_being_kept():
    model = network()
    kept = []
    handle = model.body[0].body[1].register_forward_hook(lambda _module, _inputs, y: kept.append(weakref.ref(y)))
    x = photo(64, 64).requires_grad_()
    y = Tiled(model, tile=16, halo=16)(x)
    assert len(kept) == 16
    assert not any(held() is not None for held in kept)
    y.sum().backward()
    assert len(kept) == 32
    handle.remove()


def test_tiles_see_no_more_than_themselves_and_their_halo():
    model = network()
    sizes = []
    handle = model.head.register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[0].shape[-2:]))
    tiled = Tiled(model, tile=32)
    sizes.clear()
    with torch.no_grad():
        tiled(photo(200, 100))
    handle.remove()
    assert tiled.halos == (6, 2)
    assert len(sizes) == 7 * 4
    assert max(max(size) for size in sizes) == 32 + 2 * 16


@pytest.mark.parametrize("model", [Pooled(), build(RCAN, scale=2, groups=1, blocks=1, channels=8, reduction=4)])
def test_a_model_that_needs_the_whole_image_is_refused_unless_asked_for(model):
    with pytest.raises(ConfigError, match="halo"):
        Tiled(model, tile=16)
    tiled, x = Tiled(model, tile=16, halo=16), photo(48, 40)
    with torch.no_grad():
        far = (tiled(x) - model(x)).abs().max()
    assert 1e-7 < far < 0.1


def test_the_card_tells_approximate_tiles_from_the_model():
    model = load("edsr-s")
    exact, near = Tiled(model), Tiled(model, halo=8)
    assert exact.card.name == "edsr-s"
    assert exact.card.sha256 == near.card.sha256 == model.card.sha256
    assert near.card.name == "edsr-s in tiles of 128 with 8 around"
    assert near.card == dataclasses.replace(model.card, name=near.card.name, architecture=near.arguments())


@pytest.mark.parametrize(("options", "message"), [({"tile": 20}, "multiple of 16"), ({"halo": -1}, "number of pixels")])
def test_impossible_tiles_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Tiled(Bicubic(2), **options)
