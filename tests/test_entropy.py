import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from resolute.defences.entropy import ChannelDensity, EntropyRegularizer
from resolute.models import EDSR

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(0.3, 30.0)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def untrained(channels=1, init_scale=10.0):
    """The density at its start, without the random biases: a logistic one of this scale."""
    density = ChannelDensity(channels, init_scale=init_scale)
    with torch.no_grad():
        for bias in density.biases:
            bias.zero_()
    return density


def scattered(seed, channels=3, init_scale=3.0, spread=1.0):
    """A density with random parameters of every kind, in float64."""
    density = ChannelDensity(channels, init_scale=init_scale, seed=seed).double()
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += spread * torch.randn(parameter.shape, generator=generator(seed), dtype=torch.float64)
    return density


def bits_at(density, value, delta=1.0):
    phi = torch.tensor(value, dtype=torch.float32).view(1, 1, 1, 1).requires_grad_()
    bits = density.bits(phi, delta)
    bits.sum().backward()
    return bits.item(), phi.grad.item()


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EDSR(scale=2, blocks=1, channels=6)


def images(*shape, seed=0):
    return torch.rand(shape or (2, 3, 6, 5), generator=generator(seed))


# The density.


@pytest.mark.parametrize("channels", [1, 7, 64])
def test_a_channel_has_43_parameters(channels):
    assert sum(parameter.numel() for parameter in ChannelDensity(channels).parameters()) == 43 * channels


@given(seeds, scales)
def test_the_cumulative_distribution_rises_from_zero_to_one(seed, init_scale):
    density = scattered(seed, init_scale=init_scale, spread=0.5)
    values = torch.linspace(-40, 40, 2001, dtype=torch.float64).expand(3, -1)
    with torch.no_grad():
        logits, cdf = density.logits(values), density.cdf(values)
        far = density.cdf(torch.tensor([[-1e9, 1e9]], dtype=torch.float64).expand(3, -1))
    assert (logits.diff(dim=1) > 0).all()
    assert (cdf.diff(dim=1) >= 0).all()
    assert ((cdf >= 0) & (cdf <= 1)).all()
    torch.testing.assert_close(far, torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(3, -1))


@given(seeds, st.sampled_from((0.5, 1.0, 2.0)))
@settings(max_examples=25, deadline=None)
def test_probabilities_of_a_grid_sum_to_one(seed, delta):
    density = scattered(seed, spread=0.3)
    grid = delta * torch.arange(-20000, 20001, dtype=torch.float64)
    with torch.no_grad():
        bits = density.bits(grid.expand(3, -1).t().reshape(-1, 3, 1, 1), delta)
    assert (bits >= 0).all()
    total = torch.exp2(-bits).sum(dim=0).flatten()
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_fresh_density_is_a_logistic_one():
    density = untrained(2, init_scale=10.0).double()
    values = torch.linspace(-100, 100, 401, dtype=torch.float64).expand(2, -1)
    expected = torch.from_numpy(stats.logistic(scale=10).cdf(values.numpy()))
    torch.testing.assert_close(density.cdf(values).detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (0, 5.3222),
        (30, 7.790),
        (100, 17.748),
        (185, 30.011),
        (300, 46.602),
        (1000, 147.591),
        (3000, 436.129),
    ],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_golden_bits(value, bits, sign):
    assert bits_at(untrained(), sign * value)[0] == pytest.approx(bits, abs=6e-4)


@pytest.mark.parametrize(("value", "slope"), [(0, 0), (30, 0.1306), (100, 0.1443), (185, 0.1443), (3000, 0.1443)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_golden_slopes(value, slope, sign):
    assert bits_at(untrained(), sign * value)[1] == pytest.approx(sign * slope, abs=6e-5)


@pytest.mark.parametrize("value", [1e5, 1e7, 1e9, 1e20, 1e30])
@pytest.mark.parametrize("delta", [0.01, 1.0, 10.0])
def test_no_tail_is_too_far(value, delta):
    for sign in (-1, 1):
        bits, slope = bits_at(untrained(), sign * value, delta)
        assert bits == pytest.approx(0.1 / math.log(2) * value, rel=0.02)
        assert slope == pytest.approx(sign * 0.1 / math.log(2), rel=0.02)


def test_the_mode_has_a_probability():
    """``sign(lower + upper)`` is zero there, and codes that multiply by it read a likelihood of zero."""
    assert math.exp2(-bits_at(untrained(), 0.0)[0]) == pytest.approx(2 / (1 + math.exp(-0.05)) - 1, rel=1e-5)


def test_a_certain_value_costs_nothing():
    bits, slope = bits_at(untrained(init_scale=1e-3), 0.0)
    assert bits == pytest.approx(0, abs=1e-6)
    assert slope == 0


@given(seeds, st.sampled_from((0.3, 1.0, 4.0)))
@settings(max_examples=15, deadline=None)
def test_log_space_agrees_with_the_plain_difference(seed, delta):
    density = scattered(seed)
    phi = 5 * torch.randn(4, 3, 2, 2, generator=generator(seed), dtype=torch.float64)
    with torch.no_grad():
        values = phi.transpose(0, 1).flatten(1)
        probability = density.cdf(values + delta / 2) - density.cdf(values - delta / 2)
        bits = density.bits(phi, delta).transpose(0, 1).flatten(1)
    usable = probability > 1e-7
    torch.testing.assert_close(bits[usable], -torch.log2(probability[usable]), rtol=1e-7, atol=1e-7)


@given(seeds, st.sampled_from((0.01, 0.5, 20.0)))
@settings(max_examples=15, deadline=None)
def test_delta_only_rescales(seed, delta):
    """Bits of (Φ, δ) with init_scale s are those of (Φ / δ, 1) with init_scale s / δ."""
    phi = 20 * torch.randn(2, 3, 4, 4, generator=generator(seed), dtype=torch.float64)
    wide, unit = untrained(3, 10.0).double(), untrained(3, 10.0 / delta).double()
    torch.testing.assert_close(wide.bits(phi, delta), unit.bits(phi / delta, 1.0), rtol=1e-5, atol=1e-6)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_the_difference_tends_to_the_density(seed):
    """Eq. 11 divided by δ tends to the derivative of eq. 4."""
    density, delta = scattered(seed), 1e-4
    values = torch.linspace(-8, 8, 33, dtype=torch.float64).expand(3, -1).clone().requires_grad_()
    (slope,) = torch.autograd.grad(density.cdf(values).sum(), values)
    bits = density.bits(values.detach().t().reshape(33, 3, 1, 1), delta).view(33, 3).t()
    torch.testing.assert_close(torch.exp2(-bits) / delta, slope, rtol=1e-5, atol=1e-9)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_gradients_are_those_of_finite_differences(seed):
    density = scattered(seed, channels=2, spread=0.4)
    phi = (4 * torch.randn(2, 2, 1, 2, generator=generator(seed), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: density.bits(x, 0.7), phi)
    names = [name for name, _ in density.named_parameters()]
    assert len(names) == 11

    def bits(*parameters):
        return torch.func.functional_call(_Bits(density), dict(zip(prefixed, parameters, strict=True)), phi.detach())

    prefixed = [f"density.{name}" for name in names]
    parameters = tuple(parameter.detach().requires_grad_() for parameter in density.parameters())
    assert torch.autograd.gradcheck(bits, parameters)


class _Bits(nn.Module):
    def __init__(self, density):
        super().__init__()
        self.density = density

    def forward(self, phi):
        return self.density.bits(phi, 0.7)


def test_channels_have_densities_of_their_own():
    density = scattered(5, channels=3)
    phi = torch.randn(2, 3, 4, 5, generator=generator(0), dtype=torch.float64)
    bits = density.bits(phi)
    changed = phi.clone()
    changed[:, 1] += 3
    torch.testing.assert_close(density.bits(changed)[:, [0, 2]], bits[:, [0, 2]])
    assert (density.bits(changed)[:, 1] != bits[:, 1]).all()
    for d in range(3):
        alone = ChannelDensity(1).double()
        with torch.no_grad():
            for mine, theirs in zip(alone.parameters(), density.parameters(), strict=True):
                mine.copy_(theirs[d : d + 1])
        torch.testing.assert_close(alone.bits(phi[:, d : d + 1]), bits[:, d : d + 1])


def test_elements_are_judged_where_they_stand():
    density = scattered(5, channels=3)
    phi = torch.randn(2, 3, 4, 5, generator=generator(0), dtype=torch.float64)
    bits = density.bits(phi)
    assert bits.shape == phi.shape
    torch.testing.assert_close(density.bits(phi[1:, :, 2:3, 3:4]), bits[1:, :, 2:3, 3:4])


def test_the_start_is_a_matter_of_the_seed():
    first, again, other = (ChannelDensity(3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["biases.0"], other["biases.0"])
    biases = torch.cat([bias.flatten() for bias in ChannelDensity(500).biases])
    assert -0.5 <= biases.min() < -0.49 < 0.49 < biases.max() <= 0.5


def test_other_widths():
    density = ChannelDensity(2, widths=(2, 5), init_scale=4.0)
    assert sum(parameter.numel() for parameter in density.parameters()) == 2 * ((2 + 10 + 5) + (2 + 5 + 1) + (2 + 5))
    line = ChannelDensity(1, widths=(), init_scale=4.0)
    assert sum(parameter.numel() for parameter in line.parameters()) == 2


@pytest.mark.parametrize(
    "arguments", [{"channels": 0}, {"channels": 2, "widths": (3, 0)}, {"channels": 2, "init_scale": 0.0}]
)
def test_densities_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="not"):
        ChannelDensity(**arguments)


def test_a_layer_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"\b5 channels.* 3\b"):
        ChannelDensity(3).bits(torch.zeros(1, 5, 2, 2))


MIXTURE = (stats.norm(-6, 1.0), stats.norm(5, 2.0))


def noisy_density(cdf, y):
    """The density of X + U(-1/2, 1/2)."""
    return cdf(y + 0.5) - cdf(y - 0.5)


def test_training_recovers_the_entropy_of_known_distributions():
    rng = np.random.default_rng(0)
    count = 60_000
    pick = rng.random(count) < 0.4
    mixture = np.where(pick, MIXTURE[0].rvs(count, random_state=rng), MIXTURE[1].rvs(count, random_state=rng))
    samples = [
        stats.norm(1, 4).rvs(count, random_state=rng),
        stats.laplace(-2, 3).rvs(count, random_state=rng),
        mixture,
    ]
    truths = [
        stats.norm(1, 4).cdf,
        stats.laplace(-2, 3).cdf,
        lambda y: 0.4 * MIXTURE[0].cdf(y) + 0.6 * MIXTURE[1].cdf(y),
    ]
    data = torch.from_numpy(np.stack(samples, axis=1)).float()

    density = ChannelDensity(3)
    optimiser = torch.optim.Adam(density.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1200)
    draw = generator(0)
    for _ in range(1200):
        batch = data[torch.randint(0, count, (512,), generator=draw)]
        noisy = batch + torch.rand(batch.shape, generator=draw) - 0.5
        optimiser.zero_grad()
        density.bits(noisy.view(-1, 3, 1, 1)).mean().backward()
        optimiser.step()
        schedule.step()

    y, step = np.linspace(-80, 80, 16001, retstep=True)
    with torch.no_grad():
        bits = density.bits(torch.from_numpy(y).float().view(-1, 1, 1, 1).expand(-1, 3, 1, 1))
        bits = bits.view(-1, 3).double().numpy()
    for channel, cdf in enumerate(truths):
        true = noisy_density(cdf, y)
        assert true.sum() * step == pytest.approx(1, abs=1e-6)
        entropy = -(true * np.log2(np.maximum(true, 1e-300))).sum() * step
        coded = (true * bits[:, channel]).sum() * step
        # No code beats the entropy, and a good one is near it.
        assert entropy - 1e-3 <= coded <= 1.02 * entropy


# The regulariser.


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_in_evaluation_the_model_is_bit_for_bit_itself(noise, weight):
    model, x = network(), images()
    for train in (True, False):
        model.train(train)
        before = model(x)
        defence = EntropyRegularizer(6, weight=weight, noise=noise).eval()
        with defence.attached(model, "long_skip"):
            assert torch.equal(model(x), before)
            assert torch.equal(model(x), before)
        assert torch.equal(model(x), before)


def features_and_what_enters(model, x, defence, layer="long_skip"):
    phi, entered = model.features(x).detach(), []
    handle = model.tail.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0].detach()))
    with defence.attached(model, layer):
        model(x)
        bits = defence.bits().detach()
    handle.remove()
    return phi, entered[0], bits


@pytest.mark.parametrize("delta", [0.1, 1.0, 5.0])
def test_noise_in_training_is_uniform_and_delta_wide(delta):
    model, defence = network(), EntropyRegularizer(6, delta=delta).train()
    defence.generator = generator(0)
    phi, entered, _ = features_and_what_enters(model, images(4, 3, 16, 16), defence)
    noise = (entered - phi).double().flatten() / delta
    assert noise.abs().max() <= 0.5 + 1e-4
    assert stats.kstest(noise.numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    again = (features_and_what_enters(model, images(4, 3, 16, 16), defence)[1] - phi).double().flatten() / delta
    assert abs(float(torch.corrcoef(torch.stack([noise, again]))[0, 1])) < 0.05, "the same noise twice"


def test_noise_follows_its_generator():
    model, x, defence = network(), images(), EntropyRegularizer(6).train()
    outputs = []
    for seed in (1, 1, 2):
        defence.generator = generator(seed)
        with defence.attached(model, "long_skip"):
            outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("where", ["noisy", "clean"])
def test_bits_are_taken_where_they_are_said_to_be(where):
    model, defence = network(), EntropyRegularizer(6, delta=2.0, bits_at=where).train()
    phi, entered, bits = features_and_what_enters(model, images(), defence)
    at_noisy, at_clean = (defence.density.bits(value, 2.0).mean().detach() for value in (entered, phi))
    assert not torch.isclose(at_noisy, at_clean, rtol=1e-6)
    torch.testing.assert_close(bits, at_noisy if where == "noisy" else at_clean)


def test_without_noise_only_the_bits_remain():
    model, x, defence = network(), images(), EntropyRegularizer(6, weight=0.5, noise=False).train()
    before = model(x)
    with defence.attached(model, "long_skip"):
        assert torch.equal(model(x), before)
        torch.testing.assert_close(defence.bits(), defence.density.bits(model.features(x)).mean())
        assert defence.loss() == 0.5 * defence.bits()
        assert defence.loss() > 0


def test_without_weight_only_the_noise_remains():
    model, x, defence = network(), images(), EntropyRegularizer(6, weight=0.0).train()
    before = model(x)
    with defence.attached(model, "long_skip"):
        assert not torch.equal(model(x), before)
        assert defence.loss() == 0


def test_training_moves_model_and_density_alike():
    model, defence = network().train(), EntropyRegularizer(6, weight=1.0, bits_at="noisy").train()
    parameters = {
        name: parameter
        for name, parameter in [*model.named_parameters(), *defence.named_parameters()]
        if parameter.requires_grad
    }
    assert sum(name.startswith("density.") for name in parameters) == 11
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-3)
    x = images()
    for _ in range(2):  # factors start at zero, where tanh(a) has a slope of its own: one step suffices, two are safe
        with defence.attached(model, "long_skip"):
            loss = (model(x) - 0.5).abs().mean() * 255 + defence.loss()
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in parameters.values())
        optimiser.step()
    assert [name for name, value in before.items() if torch.equal(value, parameters[name])] == []


def test_bits_push_on_the_features_and_not_only_on_the_density():
    model, defence = network(), EntropyRegularizer(6).train()
    with defence.attached(model, "long_skip"):
        model(images())
        loss = defence.loss()
    loss.backward()
    assert model.head[0].weight.grad.abs().sum() > 0
    assert model.tail[1].weight.grad is None


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_detached_the_model_is_as_it_was():
    model, x, defence = network(), images(), EntropyRegularizer(6).train()
    before, names = model(x), list(model.state_dict())
    with defence.attached(model, "long_skip") as same:
        assert same is defence
        assert list(model.state_dict()) == names
        assert hooks(model) > 0
        model(x)
    assert hooks(model) == 0
    assert torch.equal(model(x), before)
    with pytest.raises(RuntimeError, match="bits"):
        defence.loss()


def test_an_exception_detaches_too():
    model, x, defence = network(), images(), EntropyRegularizer(6).train()
    before = model(x)

    def fail():
        with defence.attached(model, "long_skip"):
            model(x)
            raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        fail()
    assert hooks(model) == 0
    assert torch.equal(model(x), before)
    with pytest.raises(RuntimeError, match="bits"):
        defence.bits()


def test_bits_need_a_pass_in_training():
    model, defence = network(), EntropyRegularizer(6).eval()
    with defence.attached(model, "long_skip"):
        model(images())
        with pytest.raises(RuntimeError, match=r"train\(\)"):
            defence.bits()


@pytest.mark.parametrize("layer", ["0", "1", "2.0", "3"])
def test_any_layer_of_any_module_can_be_regularised(layer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.PReLU(4)
        )
    defence = EntropyRegularizer(4, delta=0.5, init_scale=1.0, noise=False).train()
    outputs = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *call: outputs.append(call[2].detach()))
    with defence.attached(model, layer):
        model(images())
        bits = defence.bits()
    handle.remove()
    torch.testing.assert_close(bits, defence.density.bits(outputs[0], 0.5).mean())


def test_an_unknown_layer_is_answered_with_the_known_ones():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    with (
        pytest.raises(ValueError, match=r"'body'.* 0, 1, 1\.0$"),
        EntropyRegularizer(4).attached(model, "body"),
    ):
        pass
    assert hooks(model) == 0


def test_bits_are_float32_under_autocast():
    density = ChannelDensity(4)
    phi = 50 * torch.randn(2, 4, 5, 5, generator=generator(0))
    exact = density.bits(phi.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        inside = density.bits(phi.bfloat16())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, exact)
    model, defence = network(), EntropyRegularizer(6).train()
    with defence.attached(model, "long_skip"), torch.autocast("cpu", torch.bfloat16):
        model(images())
        loss = defence.loss()
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in defence.parameters())


def test_small_noise_survives_whatever_the_rest_runs_in():
    # In bfloat16 the layer after Φ would round most of so small a noise away.
    model = network()
    x = images()

    def moved(delta: float, mixed: bool) -> torch.Tensor:
        defence = EntropyRegularizer(6, weight=0, delta=delta).train()
        defence.generator = generator(3)
        with (
            torch.no_grad(),
            defence.attached(model, "long_skip"),
            torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        ):
            return model(x)

    for mixed in (False, True):
        small, none = moved(0.05, mixed), moved(1e-9, mixed)
        assert small.dtype == torch.float32
        assert (small != none).float().mean() > 0.95
    full, half = (moved(0.05, mixed) - moved(1e-9, mixed) for mixed in (False, True))
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * float(full.abs().mean()))


def test_delta_in_units_of_the_spread_is_that_of_the_first_pass():
    phi = 7 * torch.randn(2, 4, 30, 30, generator=generator(0)) + 3
    defence = EntropyRegularizer(4, delta="0.05 std").train()
    defence.generator = generator(1)
    noise = defence(phi) - phi
    assert float(defence.unit) == pytest.approx(float(phi.std()))
    assert float(noise.abs().max()) == pytest.approx(0.025 * 7, rel=0.05)
    # Later passes keep the unit, so that a layer gains nothing by growing.
    assert float((defence(10 * phi) - 10 * phi).abs().max()) == pytest.approx(0.025 * 7, rel=0.05)
    assert defence.figures()["spread"] == pytest.approx(10, rel=1e-3)
    same = EntropyRegularizer(4, delta=0.05, noise=False).train()
    again = EntropyRegularizer(4, delta="0.05 std", noise=False).train()
    same(phi / phi.std()), again(phi)
    torch.testing.assert_close(again.bits(), same.bits(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "arguments", [{"delta": 0.0}, {"delta": -1.0}, {"weight": -0.1}, {"delta": "0.05"}, {"delta": "0 std"}]
)
def test_regularisers_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match=r"delta|weight"):
        EntropyRegularizer(4, **arguments)


def test_its_repr_is_its_configuration():
    text = repr(EntropyRegularizer(4, weight=0.5, delta=2.0, noise=False, bits_at="clean"))
    assert "weight=0.5, delta=2.0, noise=False, bits_at='clean'" in text
