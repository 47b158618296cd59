import pytest
import torch

from resolute import ConfigError, as_scorer
from resolute.training.gan import GanLoss
from resolute.training.restore_recipe import GanTable

SMALL = GanTable(content="quality-s", channels=4, hidden=8)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 32, 32, generator=generator), torch.rand(2, 3, 32, 32, generator=generator)


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def test_the_generator_sees_the_discriminator_as_a_constant_and_the_other_way_round(images):
    output, high = images
    gan = GanLoss(SMALL, side=32).train()
    output = output.requires_grad_()
    loss = gan(output, high)
    (of_output,) = gradients(loss, [output])
    assert of_output.abs().sum() > 0
    # The discriminator's gradient is that of its own two terms alone.
    own = GanLoss(SMALL, side=32).train()
    own.load_state_dict(gan.state_dict())
    real, fake = own.discriminator(high), own.discriminator(output.detach())
    alone = torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
    expected = gradients(alone, list(own.discriminator.parameters()))
    found = gradients(gan(output, high), list(gan.discriminator.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_equal_images_have_no_content_loss(images):
    _, high = images
    table = GanTable(content="quality-s", channels=4, hidden=8, weight=0.0)
    gan = GanLoss(table, side=32).eval()
    real = gan.discriminator(high)
    alone = torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(real).mean()
    assert gan(high, high).item() == pytest.approx(alone.item(), rel=1e-5)


def test_the_fixed_network_is_no_part_of_what_trains():
    gan = GanLoss(SMALL, side=32)
    assert all(name.startswith("discriminator.") for name in gan.state_dict())


def test_vgg_without_its_weights_says_what_to_do():
    with pytest.raises(ConfigError, match="--backbone"):
        GanLoss(GanTable(), side=32)


def test_a_metric_without_known_features_is_refused(monkeypatch):
    monkeypatch.setattr("resolute.training.gan.load_scorer", lambda _name: as_scorer(lambda x: x.mean((1, 2, 3)), "m"))
    with pytest.raises(ConfigError, match=r"mine .*features"):
        GanLoss(GanTable(content="mine"), side=32)
