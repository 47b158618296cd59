import dataclasses

import pytest
import torch
from torch import nn

from resolute import Bicubic
from resolute.attacks import OutputShift
from resolute.defences.adversarial import Adversarial, attacked_patches
from resolute.defences.consistency import Consistency
from resolute.defences.entropy import Entropy
from resolute.defences.jacobian import Jacobian, jacobian_penalty, probe_shift, worst_shift
from resolute.defences.jitter import Jitter
from resolute.defences.method import InputMethod, Moment, Seen, TwinMethod
from resolute.errors import ConfigError
from resolute.models import EDSR
from resolute.training.hardener import Hardener, reconstruction_loss
from resolute.training.recipe import read_recipe
from resolute.training.restore_recipe import LossTable
from resolute.training.task import describe_failure


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)


def network() -> EDSR:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDSR(scale=2, blocks=2, channels=8)


def test_the_loss_of_noisy_copies_is_that_of_their_mean_without_bias(batch):
    """For a linear model the mean output is that of the clean input, whatever the noise."""
    low, high = batch
    model, mse = Bicubic(2), LossTable(kind="mse")
    jitter = Jitter(level=40, copies=3, spared=1)

    def loss(seed):
        seen = jitter.inputs(model, Seen.of(low, high), Moment(torch.Generator().manual_seed(seed)))
        assert (len(seen.low), seen.clean) == (6, 6)
        output = model(seen.low)
        judged = jitter.judged(output, lambda a, b: reconstruction_loss(mse, a, b))
        return float(reconstruction_loss(mse, output, seen.high)), float(judged)

    drawn = torch.tensor([loss(seed) for seed in range(200)], dtype=torch.float64)
    exact = float(reconstruction_loss(mse, model(low), high))
    total = drawn.sum(dim=1)
    assert abs(float(total.mean()) - exact) < 4 * float(total.std()) / 200**0.5
    assert float(drawn[:, 0].mean()) > exact + 10 * float(total.std()) / 200**0.5
    assert Jitter(level=4).judged(model(low), lambda a, b: reconstruction_loss(mse, a, b)) == 0


def test_copies_are_of_clean_patches_and_for_a_mean_square():
    with pytest.raises(ValueError, match="copies"):
        dataclasses.replace(read_recipe("harden"), jitter=Jitter(copies=2))
    recipe = read_recipe("harden", ["noise"])
    assert (recipe.adversarial, recipe.loss.kind, recipe.jitter.copies) == (None, "mse", 4)
    with pytest.raises(ValueError, match="spared"):
        dataclasses.replace(recipe, loss=LossTable(kind="l1"))
    with pytest.raises(ValueError, match="one copy"):
        dataclasses.replace(recipe, jitter=Jitter(spared=1))


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


def hardener(name: str, **tables: object) -> Hardener:
    recipe = dataclasses.replace(read_recipe(name), **tables)
    return Hardener(recipe, network(), recipe.seed)


def test_adversarial_training_doubles_the_batch_with_the_clean_half_first(batch):
    low, high = batch
    seen, twins = hardener("edsr-xs-adv").prepare(low, high, 0, 0, 1.0)
    assert (torch.equal(seen.low[:2], low), seen.clean, twins) == (True, 2, ())
    assert not torch.equal(seen.low[2:], low)
    assert torch.equal(seen.high, torch.cat([high, high]))


def test_jitter_is_noise_of_its_level_and_a_plain_recipe_changes_nothing(batch):
    low, high = torch.full((1, 3, 100, 100), 0.5), torch.zeros(1, 3, 200, 200)
    for kind, spread in (("gaussian", 4.0), ("uniform", 4.0 / 3**0.5)):
        seen, _ = hardener("edsr-xs-jitter", jitter=Jitter(level=4.0, kind=kind)).prepare(low, high, 0, 0, 1.0)
        assert ((seen.low - low).std() * 255).item() == pytest.approx(spread, rel=0.02)
    plain, twins = hardener("edsr-xs").prepare(*batch, 0, 0, 1.0)
    assert plain.low is batch[0]
    assert twins == ()


def test_methods_combine_and_each_adds_its_part(batch):
    low, high = batch
    made = hardener(
        "edsr-xs",
        adversarial=Adversarial(share=0.5, start="uniform"),
        jitter=Jitter(level=1.0),
        consistency=Consistency(level=4, steps=2),
        jacobian=Jacobian(direction="worst"),
        defence=Entropy(noise=False, weight=0.1),
    )
    seen, twins = made.prepare(low, high, 3, 0, 0.5)
    again, _ = made.prepare(low, high, 3, 0, 0.5)
    assert torch.equal(seen.low, again.low)
    assert [len(twin) for twin in twins] == [2, 2]
    assert (twins[0] - seen.low).abs().max() <= 4 / 255 + 1e-6
    outputs = made(seen.low, seen.high, *twins)
    table = LossTable()
    added, figures = made.added(outputs, seen, twins, table)
    assert set(figures) == {"consistency", "jacobian", "bits", "live", "spread"}
    expected = figures["consistency"] + figures["jacobian"] + 0.1 * figures["bits"]
    assert added.item() == pytest.approx(expected, rel=1e-5)
    assert figures["consistency"] == pytest.approx(
        reconstruction_loss(table, outputs.twins[0], outputs.output).item(), rel=1e-5
    )


def test_the_worst_neighbour_of_consistency_is_worse_than_a_random_one(batch):
    low, _ = batch
    model = network()
    moment = Moment(torch.Generator().manual_seed(0))
    found = Consistency(level=4, steps=5).twin(model, low, moment)
    random = (low + 4 / 255 * torch.randn(low.shape, generator=moment.generator).sign()).clamp(0, 1)
    with torch.no_grad():
        moved, floor = ((model(x) - model(low)).square().sum() for x in (found, random))
    assert moved > 1.5 * floor


def test_the_worst_direction_is_the_first_singular_vector_of_the_jacobian(batch):
    model, low = network(), batch[0][:1, :, :5, :4]
    jacobian = torch.autograd.functional.jacobian(model, low).reshape(-1, low.numel())
    values = torch.linalg.svdvals(jacobian)
    length = 1e-3
    start = probe_shift(low, length, torch.Generator().manual_seed(0))
    shift = worst_shift(model, low, start, iterations=60)
    assert shift.norm().item() == pytest.approx(start.norm().item(), rel=1e-4)
    with torch.no_grad():
        gain = (model(low + shift) - model(low)).norm() / shift.norm()
    assert gain.item() == pytest.approx(values[0].item(), rel=0.02)


def test_what_rises_begins_at_nothing(batch):
    low, high = batch
    made = hardener("edsr-xs", adversarial=Adversarial(level=8, share=0.5, ramp=0.5, start="uniform"))
    reach = [
        float((made.prepare(low, high, 1, 0, progress)[0].low - low).abs().max()) for progress in (0.0, 0.25, 0.5, 1.0)
    ]
    assert reach == pytest.approx([0.0, 4 / 255, 8 / 255, 8 / 255], abs=1e-6)
    entropy = hardener("edsr-xs", defence=Entropy(ramp=0.4))
    gradients = []
    for progress in (0.0, 0.2, 0.4):
        seen, twins = entropy.prepare(low, high, 1, 0, progress)
        entropy.zero_grad()
        entropy.added(entropy(seen.low, seen.high), seen, twins, LossTable())[0].backward()
        weight, density = entropy.model.head[0].weight, entropy.defences[0].density.biases[0]
        gradients.append((float(weight.grad.norm()), float(density.grad.norm())))
    assert [one / gradients[2][0] for one, _ in gradients] == pytest.approx([0, 0.5, 1], abs=1e-4)
    assert [one / gradients[2][1] for _, one in gradients] == pytest.approx([1, 1, 1], rel=1e-4)


def test_free_training_moves_a_perturbation_by_the_gradients_of_the_steps(batch):
    low, high = batch
    free = Adversarial(level=4, steps=0, relative_step=0.5, share=0.5, start="uniform", replay=3)
    made = hardener("edsr-xs", adversarial=free)
    reached = []
    for step in range(4):
        seen, _ = made.prepare(low, high, step, 0, 1.0)
        reconstruction_loss(LossTable(), made(seen.low, seen.high).output, seen.high).backward()
        reached.append((seen.low[1:].detach() - low[1:]).clone())
        assert torch.equal(seen.low[:1], low[:1])
        assert reached[-1].abs().max() <= 4 / 255 + 1e-6
    moved = (reached[1] - reached[0]).abs()
    assert moved.max() <= 2 / 255 + 1e-6
    assert (moved > 1 / 255).float().mean() > 0.3
    # The fourth step begins anew, from another random point.
    assert (reached[3] - reached[2]).abs().max() > 2 / 255
    with pytest.raises(ValueError, match="replay"):
        Adversarial(steps=0)


class Cut(InputMethod):
    def inputs(self, model, seen, moment):
        return Seen(seen.low[:, :, 1:], seen.high, seen.clean)


class Pair(InputMethod):
    def inputs(self, model, seen, moment):
        return seen.low, seen.high


class Twin(TwinMethod):
    def __init__(self, found=None, penalty=None):
        self.found, self.value = found, penalty

    def twin(self, model, low, moment):
        return low if self.value is not None else self.found

    def penalty(self, output, other, shift, distance):
        return self.value


@pytest.mark.parametrize(
    "method",
    [Cut(), Pair(), Twin(), Twin(torch.zeros(2, 3, 4, 4)), Twin(penalty=1.0), Twin(penalty=torch.zeros(2))],
)
def test_what_a_method_of_ones_own_returns_is_checked(method, batch):
    low, high = batch
    made = hardener("edsr-xs")
    (made._inputs if isinstance(method, InputMethod) else made._twins).append(method)

    def step():
        seen, twins = made.prepare(low, high, 0, 0, 1.0)
        made.added(made(seen.low, seen.high, *twins), seen, twins, LossTable())

    with pytest.raises(ConfigError, match=type(method).__name__):
        step()


def test_several_layers_have_a_density_each(batch):
    low, high = batch
    made = hardener("edsr-xs", defence=Entropy(layer=("phi", "body.*.body.0"), delta="0.5 std"))
    assert made.layers == ("long_skip", "body.0.body.0", "body.1.body.0")
    seen, _ = made.prepare(low, high, 0, 0, 1.0)
    assert made(seen.low, seen.high).bits.item() > 0
    with pytest.raises(ConfigError, match="no_such"):
        hardener("edsr-xs", defence=Entropy(layer="no_such"))


def test_a_layer_that_answers_one_number_is_no_success(batch):
    low, high = batch
    made = hardener("edsr-xs", defence=Entropy())
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.zero_()
    seen, twins = made.prepare(low, high, 0, 0, 1.0)
    added, figures = made.added(made(seen.low, seen.high), seen, twins, LossTable())
    assert not added.isfinite()
    assert "defence.weight" in describe_failure(figures | {"loss": float("nan")})
    with pytest.raises(ValueError, match="layer"):
        Entropy(layer=())
    for table, field in ((Entropy, "weight"), (Adversarial, "level"), (Consistency, "weight")):
        with pytest.raises(ValueError, match=field):
            table(**{field: float("inf")})
    assert "mine" in describe_failure({"loss": float("nan"), "l1": 1.0, "mine": float("nan")})


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
