import pytest
import torch
from torch.nn import functional as F

from resolute.attacks.features import layer_outputs
from resolute.errors import CheckpointError
from resolute.models import EDSR
from resolute.models.vgg import VGG19Features

# Places of the convolutions of VGG19 in PyTorch's own layout, and after which of them the image is halved.
PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
WIDTHS = (64, 64, 128, 128, *4 * (256,), *8 * (512,))
HALVED_AFTER = (2, 7, 16, 25)


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(0)
    weights, inputs = {}, 3
    for place, outputs in zip(PLACES, WIDTHS, strict=True):
        deviation = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{place}.weight"] = deviation * torch.randn(outputs, inputs, 3, 3, generator=generator)
        weights[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        inputs = outputs
    return {**weights, "classifier.0.weight": torch.zeros(4, 7), "classifier.0.bias": torch.zeros(4)}


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    file = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(state, file)
    return file


def test_the_features_are_those_of_the_equations(state, path):
    x = torch.rand(1, 3, 33, 18, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    h = (x - mean) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    for place in PLACES:
        h = F.conv2d(h, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1).relu()
        h = F.max_pool2d(h, 2) if place in HALVED_AFTER else h
    network = VGG19Features.read(path)
    features = network(x)
    assert features.shape == (1, 512, 2, 1)
    torch.testing.assert_close(features, h / 12.75, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer_outputs(network, x, ["scaled"])[0], features)


def test_the_network_is_frozen_and_yet_lets_gradients_through(path):
    network = VGG19Features.read(path)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert gradient.abs().max() > 0


def test_weights_that_are_no_vgg19_are_refused(state, tmp_path):
    torch.save(EDSR(2, blocks=1, channels=4).state_dict(), tmp_path / "edsr.pth")
    with pytest.raises(CheckpointError, match=r"edsr\.pth .*vgg19-dcbb9e9d\.pth"):
        VGG19Features.read(tmp_path / "edsr.pth")
    lacking = {name: tensor for name, tensor in state.items() if name != "features.34.bias"}
    torch.save(lacking, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"features\.34\.bias"):
        VGG19Features.read(tmp_path / "vgg.pth")
    torch.save({**state, "features.1.running_mean": torch.zeros(64)}, tmp_path / "vgg_bn.pth")
    with pytest.raises(CheckpointError, match=r"features\.1\.running_mean"):
        VGG19Features.read(tmp_path / "vgg_bn.pth")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        VGG19Features.read(tmp_path / "none.pth")
    (tmp_path / "torn.pth").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"torn\.pth .*web page"):
        VGG19Features.read(tmp_path / "torn.pth")
