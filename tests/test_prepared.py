import dataclasses

import pytest
import torch
from torch import nn

from resolute import Bicubic
from resolute.attacks import OutputShift
from resolute.defences.adversarial import attacked_patches
from resolute.defences.jacobian import jacobian_penalty, probe_shift
from resolute.models import EDSR
from resolute.training.prepared import prepare, reconstruction_loss
from resolute.training.recipe import read_recipe
from resolute.training.restore_recipe import LossTable


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)


def network() -> EDSR:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDSR(scale=2, blocks=2, channels=8)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("reference", ["truth", "self"])
def test_attacked_patches_stay_in_the_ball_and_do_what_they_are_for(batch, steps, reference):
    low, high = batch
    model = network()
    generator = torch.Generator().manual_seed(1)
    attacked = attacked_patches(model, low, high, steps=steps, reference=reference, generator=generator)
    assert (attacked - low).abs().max() <= 8 / 255 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert not attacked.requires_grad
    with torch.no_grad():
        if reference == "truth":
            assert ((model(attacked) - high) ** 2).mean() > ((model(low) - high) ** 2).mean()
        else:
            random = (low + 8 / 255 * torch.randn_like(low).sign()).clamp(0, 1)
            shift = OutputShift().bind(model, low)
            assert (shift(attacked) > shift(random)).all()


def test_one_step_from_the_truth_is_fgsm(batch):
    low, high = batch
    model = network()
    x = low.clone().requires_grad_()
    ((model(x) - high) ** 2).sum().backward()
    expected = (low + 8 / 255 * x.grad.sign()).clamp(0, 1)
    assert torch.allclose(attacked_patches(model, low, high), expected, atol=1e-6)


def test_the_model_is_left_as_it_was(batch):
    low, high = batch
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attacked_patches(model, low, high)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in network().parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_adversarial_training_doubles_the_batch_with_the_clean_half_first(batch):
    low, high = batch
    seen = prepare(read_recipe("edsr-xs-adv"), network(), low, high, torch.Generator().manual_seed(0))
    assert torch.equal(seen.low[:2], low)
    assert not torch.equal(seen.low[2:], low)
    assert torch.equal(seen.high, torch.cat([high, high]))
    assert seen.scale == 1.0
    recipe = read_recipe("edsr-xs-adv")
    summed = dataclasses.replace(recipe, adversarial=dataclasses.replace(recipe.adversarial, combine="sum"))
    assert prepare(summed, network(), low, high, torch.Generator()).scale == 2.0


def test_jitter_is_noise_of_its_level_and_a_plain_recipe_changes_nothing(batch):
    low, high = torch.full((1, 3, 100, 100), 0.5), torch.zeros(1, 3, 200, 200)
    seen = prepare(read_recipe("edsr-xs-jitter"), network(), low, high, torch.Generator().manual_seed(0))
    assert ((seen.low - low).std() * 255).item() == pytest.approx(4.0, rel=0.02)
    plain = prepare(read_recipe("edsr-xs"), network(), *batch, torch.Generator())
    assert plain.low is batch[0]
    assert plain.shifted is None


def test_the_jacobian_penalty_is_the_mean_square_gain_of_a_linear_model():
    model = Bicubic(scale=2)
    low = torch.zeros(1, 3, 6, 5)
    jacobian = torch.autograd.functional.jacobian(model, low).reshape(3 * 12 * 10, 3 * 6 * 5)
    exact = jacobian.square().sum() / jacobian.shape[0]
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(400):
        shift = probe_shift(low, 1 / 255, generator)
        # Against the shift's own expected square, which is what the mean of its squares estimates.
        draws.append(jacobian_penalty(model(low), model(low + shift), shift))
    assert torch.stack(draws).mean().item() == pytest.approx(exact.item(), rel=0.03)


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [("l1", "255", 25.5), ("mse", "255", 650.25), ("mse", "tanh", 0.04), ("l1", "tanh", 0.2)],
)
def test_losses_are_on_the_scale_that_they_name(kind, scale, expected):
    output, high = torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)
    loss = reconstruction_loss(LossTable(kind=kind, scale=scale), output, high)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_step_of_adversarial_training_makes_the_attack_bite_less():
    # One weight: S(x) = w x, truth 0.5 x. Training on attacked patches must pull w towards the truth as clean ones do.
    model = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(model.weight)
    low = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    attacked = attacked_patches(model, low, 0.5 * low, epsilon=8 / 255)
    assert (model(attacked) - 0.5 * low).square().mean() > (model(low) - 0.5 * low).square().mean()
