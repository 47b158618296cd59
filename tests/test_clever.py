import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from resolute.measure.clever import clever, clever_power
from resolute.models import EDSR, Bicubic


class Linear(nn.Module):
    """``S(x) = A x``, and a memory of what it was asked."""

    def __init__(self, outputs, inputs, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(outputs, inputs, generator=generator, dtype=torch.float64))
        self.asked = []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        return (x.flatten(1) @ self.matrix.T).view(len(x), 1, 1, -1)


def image(*shape, seed=0):
    return torch.rand(shape or (1, 3, 3, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDSR(scale=2, blocks=1, channels=4)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_linear_model_has_the_index_of_its_closed_form(batch):
    model, x = Linear(50, 36), image()
    result = clever(model, x, samples=10, batch=batch)
    draws = (torch.cat(model.asked[1:]) - x).flatten(1).numpy()
    assert draws.shape == (10, 36)
    matrix = model.matrix.detach().numpy()
    for draw, norm in zip(draws, result.gradient_norms.tolist(), strict=True):
        moved = matrix @ draw
        gradient = matrix.T @ moved / math.sqrt((moved**2).sum())
        assert norm == pytest.approx(np.abs(gradient).sum(), rel=1e-5)
    assert result.index == result.gradient_norms.max().item()
    assert result.gradient_norms.min() < result.index


def test_draws_are_uniform_in_the_radius_and_all_different():
    model, x = Linear(5, 36), image()
    clever(model, x, samples=300, radius=0.02, batch=50)
    draws = (torch.cat(model.asked[1:]) - x).flatten(1) / 0.02
    assert draws.abs().max() <= 1 + 1e-9
    assert draws.abs().max() > 0.999
    assert abs(float(draws.mean())) < 0.02
    assert float(draws.var()) == pytest.approx(1 / 3, rel=0.03)
    assert len({tuple(draw.tolist()) for draw in draws}) == 300


def test_the_radius_of_the_paper_is_the_default():
    model, x = Linear(5, 36), image()
    assert clever(model, x).gradient_norms.shape == (1024,)
    assert float((torch.cat(model.asked[1:]) - x).abs().max()) == pytest.approx(1 / 255, rel=1e-3)


def test_batches_change_no_number_and_bound_the_memory():
    model, x = network().double(), image(1, 3, 5, 4)
    expected = clever(model, x, samples=7)
    for batch in (2, 3, 7, 100):
        sizes = []
        handle = model.register_forward_pre_hook(lambda _module, inputs, sizes=sizes: sizes.append(len(inputs[0])))
        found = clever(model, x, samples=7, batch=batch)
        handle.remove()
        assert max(sizes) == min(batch, 7)
        assert sum(sizes) == 1 + 7
        torch.testing.assert_close(found.gradient_norms, expected.gradient_norms, rtol=1e-6, atol=0)


def test_more_samples_only_add_to_those_before():
    model, x = network(), image(1, 3, 5, 4).float()
    few, many = (clever(model, x, samples=samples) for samples in (3, 9))
    assert torch.equal(many.gradient_norms[:3], few.gradient_norms)
    assert many.index >= few.index


def test_the_seed_decides_the_draws():
    model, x = network(), image(1, 3, 5, 4).float()
    first, again, other = (clever(model, x, samples=3, seed=seed).gradient_norms for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_steeper_model_has_a_larger_index():
    x = image(1, 3, 5, 4).float()
    model = network()
    before = clever(model, x, samples=4).index
    with torch.no_grad():
        model.tail[1].weight.mul_(3)
    assert clever(model, x, samples=4).index == pytest.approx(3 * before, rel=1e-3)


def test_a_constant_model_has_none():
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x + 0.5

    result = clever(Constant(), image(), samples=3)
    assert result.index == 0
    assert result.gradient_norms.tolist() == [0, 0, 0]
    assert clever_power(Constant(), image(), steps=2, starts=1).gradient_norms.tolist() == [0, 0, 0]


def test_progress_counts_draws():
    calls = []
    clever(Bicubic(2), image(), samples=5, batch=2, progress=lambda *call: calls.append(call))
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_the_model_comes_back_as_it_was():
    model = network().train()
    model.head.eval()
    model.tail[1].bias.requires_grad_(False)
    training = {name: module.training for name, module in model.named_modules()}
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    clever(model, image(1, 3, 5, 4).float(), samples=2)
    assert {name: module.training for name, module in model.named_modules()} == training
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trainable
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_works_inside_no_grad():
    model, x = network(), image(1, 3, 5, 4).float()
    with torch.no_grad():
        quiet = clever(model, x, samples=2)
    assert torch.equal(quiet.gradient_norms, clever(model, x, samples=2).gradient_norms)


def test_a_broken_model_has_no_index():
    model = network()
    with torch.no_grad():
        model.tail[1].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        clever(model, image(1, 3, 5, 4).float(), samples=2)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (image(2, 3, 4, 4), {}),
        (image(3, 4, 4), {}),
        (image(), {"samples": 0}),
        (image(), {"batch": 0}),
        (image(), {"radius": 0.0}),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_questions_without_an_answer_are_refused(x, options):
    with pytest.raises(ValueError, match=r"one image|least 1"):
        clever(Bicubic(2), x, **options)


# Sign-power steps.


def test_power_steps_on_a_linear_model_have_their_closed_form_and_never_fall():
    model, x = Linear(50, 36), image()
    found = clever_power(model, x, steps=4, starts=3, batch=3, radius=0.01)
    matrix = model.matrix.detach().numpy()
    shifts = (model.asked[1] - x).flatten(1).numpy()
    for shift, norms in zip(shifts, found.gradient_norms.view(3, 5).tolist(), strict=True):
        for norm in norms:
            moved = matrix @ shift
            gradient = matrix.T @ moved / math.sqrt((moved**2).sum())
            assert norm == pytest.approx(np.abs(gradient).sum(), rel=1e-5)
            shift = 0.01 * np.sign(gradient)
        assert (np.diff(norms) >= -1e-4 * norms[0]).all()
    assert found.index == found.gradient_norms.max().item()
    assert found.index > 1.1 * found.gradient_norms.view(3, 5)[:, 0].max()


def test_power_steps_reach_the_norm_of_a_small_matrix_and_never_exceed_it():
    x = image(1, 3, 2, 2)
    for seed in range(5):
        model = Linear(8, 12, seed)
        corners = np.array(list(itertools.product((-1.0, 1.0), repeat=12)))
        norm = np.linalg.norm(corners @ model.matrix.detach().numpy().T, axis=1).max()
        index = clever_power(model, x, starts=16).index
        assert index == pytest.approx(norm, rel=1e-5)


def test_power_steps_start_from_the_draws_and_only_add_to_them():
    model, x = network(), image(1, 3, 5, 4).float()
    draws = clever(model, x, samples=3)
    found = clever_power(model, x, steps=2, starts=3)
    assert torch.equal(found.gradient_norms.view(3, 3)[:, 0], draws.gradient_norms)
    assert torch.equal(clever_power(model, x, steps=0, starts=3).gradient_norms, draws.gradient_norms)
    assert found.index >= draws.index
    assert (found.gradients, draws.gradients) == (9, 3)
    assert found.seconds > 0
    assert draws.seconds > 0


def test_power_steps_find_more_than_many_times_as_many_draws():
    model, x = network(), image(1, 3, 12, 10).float()
    found, draws = clever_power(model, x, steps=6, starts=2), clever(model, x, samples=280, batch=40)
    assert draws.gradients == 20 * found.gradients
    assert found.index > 1.1 * draws.index


def test_power_steps_do_not_depend_on_the_batch():
    model, x = network().double(), image(1, 3, 5, 4)
    asked = []
    handle = model.register_forward_pre_hook(lambda _module, inputs: asked.append(len(inputs[0])))
    expected = clever_power(model, x, steps=3, starts=5)
    assert max(asked) == 1
    calls = []
    found = clever_power(model, x, steps=3, starts=5, batch=2, progress=lambda *call: calls.append(call))
    handle.remove()
    assert max(asked) == 2
    assert calls == [(8, 20), (16, 20), (20, 20)]
    torch.testing.assert_close(found.gradient_norms, expected.gradient_norms, rtol=1e-6, atol=0)


def test_power_steps_stay_in_the_radius():
    model, x = Linear(5, 36), image()
    clever_power(model, x, steps=3, starts=2, radius=0.02)
    assert float((torch.cat(model.asked[1:]) - x).abs().max()) <= 0.02 * (1 + 1e-6)


@pytest.mark.parametrize("options", [{"starts": 0}, {"steps": -1}, {"batch": 0}, {"radius": 0.0}])
def test_power_steps_from_nowhere_are_refused(options):
    with pytest.raises(ValueError, match=r"at least 1"):
        clever_power(Bicubic(2), image(), **options)
