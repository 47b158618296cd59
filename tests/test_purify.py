import pytest
import torch

from resolute import ConfigError
from resolute.defences.purify import Blur, Crop, Flip, Jpeg, Resize, purifier

NAMES = ("jpeg-50", "resize-0.5", "crop-16", "blur-3", "flip", "flip-h", "flip-v")


def images():
    return torch.rand(2, 3, 24, 33, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_by_name_stays_in_range_and_repeats_itself(name):
    made = purifier(name)
    found = made(images())
    assert made.card.name == name
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found, purifier(name)(images()))
    torch.testing.assert_close(found[1:], made(images()[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_the_image(name):
    x = images().requires_grad_()
    purifier(name)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_jpeg_is_straight_through():
    x = images().requires_grad_()
    Jpeg(50)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    torch.testing.assert_close(Jpeg(50)(x).detach(), Jpeg(50)(x.detach()))
    assert (Jpeg(95)(images()) - images()).abs().mean() < (Jpeg(10)(images()) - images()).abs().mean()


def test_shapes_and_known_values():
    x = images()
    assert Resize(0.5)(x).shape == (2, 3, 12, 16)
    assert Crop(16)(x).shape == (2, 3, 16, 16)
    assert torch.equal(Crop(100)(x), x)
    assert any(not torch.equal(Crop(16)(x), Crop(16, seed=seed)(x)) for seed in range(1, 5))
    assert torch.equal(Flip()(x), x.flip(-1, -2))
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    assert Blur(3)(point).sum().item() == pytest.approx(3, abs=1e-5)
    assert Blur(3)(point)[0, 0, 4, 4].item() == pytest.approx(0.5226**2, abs=1e-3)


@pytest.mark.parametrize("name", ["", "nothing", "jpeg-x", "jpeg-0", "blur-4", "crop-0", "resize-2", "flip-q"])
def test_what_does_not_exist_is_refused(name):
    with pytest.raises(ConfigError):
        purifier(name)
