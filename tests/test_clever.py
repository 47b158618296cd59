import math

import numpy as np
import pytest
import torch
from torch import nn

from resolute.measure.clever import clever
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
    with pytest.raises(FloatingPointError, match="check the model for NaN weights"):
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
    with pytest.raises(ValueError, match=r"one image|at least 1"):
        clever(Bicubic(2), x, **options)
