import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resolute.defences.dms_iqa import (
    LossBalance,
    dms_iqa_losses,
    rank_loss,
    scaled_scores,
    score_range,
    target_loss,
)
from resolute.errors import ConfigError
from resolute.models import QualityNet, Scorer
from resolute.models.denoisers import UNet

SCORES = st.lists(st.integers(-50, 50), min_size=1, max_size=8, unique=True)


class Brightness(Scorer):
    """The mean of an image, whatever its range is said to be."""

    def __init__(self, low=None, high=None, usual=None, lower_better=False):
        super().__init__()
        self.low, self.high, self.usual, self.lower_better = low, high, usual, lower_better

    def arguments(self):
        return {"class": "Brightness"}

    def forward(self, x):
        return x.mean(dim=(1, 2, 3))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@given(SCORES, st.randoms())
def test_the_rank_loss_is_zero_exactly_where_the_order_is_right(order, random):
    scores = list(range(len(order)))
    random.shuffle(scores)
    pairs = [(i, j) for i in range(len(order)) for j in range(len(order)) if order[i] < order[j]]
    right = all(scores[i] < scores[j] for i, j in pairs)
    assert (rank_loss(tensor(scores), tensor(order)).item() == 0) == right
    assert rank_loss(tensor(order), tensor(order)).item() == 0


@given(SCORES, st.randoms())
def test_the_rank_loss_is_symmetric(order, random):
    scores = tensor([random.uniform(-1, 1) for _ in order])
    loss = rank_loss(scores, tensor(order))
    shuffled = list(range(len(order)))
    random.shuffle(shuffled)
    torch.testing.assert_close(rank_loss(scores[shuffled], tensor(order)[shuffled]), loss)
    torch.testing.assert_close(rank_loss(-scores, -tensor(order)), loss)
    torch.testing.assert_close(rank_loss(scores + 3, tensor(order) * 2), loss)


def test_ties_in_the_order_cost_nothing():
    assert rank_loss(tensor([3.0, 1.0, 2.0]), tensor([5.0, 5.0, 5.0])).item() == 0


def test_the_rank_loss_is_the_written_formula():
    r, s = [0.9, 0.1, 0.5, 0.4], [1.0, 2.0, 3.0, 4.0]
    terms = [
        max(0.0, (r[i] - r[j]) * (1 if s[j] > s[i] else -1 if s[j] < s[i] else 0)) for i in range(4) for j in range(4)
    ]
    assert rank_loss(tensor(r), tensor(s)).item() == pytest.approx(sum(terms) / 16 / (1 + max(terms)))


@pytest.mark.parametrize("seed", range(4))
def test_gradients_agree_with_finite_differences(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(6, dtype=torch.float64, generator=generator).requires_grad_()
    order = torch.rand(6, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda r: rank_loss(r, order), scores)
    assert torch.autograd.gradcheck(lambda r: target_loss(r, order), scores)


def test_a_step_down_the_rank_loss_mends_the_order():
    scores, order = tensor([0.9, 0.1]).requires_grad_(), tensor([1.0, 2.0])
    rank_loss(scores, order).backward()
    assert scores.grad[0] > 0 > scores.grad[1]


@pytest.mark.parametrize("term", ["mse", "target", "rank"])
def test_gradients_reach_the_denoiser_and_not_the_metric(term):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        metric, denoiser = QualityNet(widths=(4, 6), hidden=4), UNet((8, 6))
    metric.train()
    before = {name: tensor.clone() for name, tensor in metric.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 32, 32, generator=generator)
    noisy = (clean + 0.3 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    losses = dms_iqa_losses(metric, denoiser(noisy).clamp(0, 1), clean, order=-metric(clean).detach())
    getattr(losses, term).backward()
    assert denoiser.last.weight.grad.abs().max() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in metric.parameters())
    assert all(module.training for module in metric.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in metric.state_dict().items())


def test_the_three_terms_of_a_batch():
    metric = Brightness(low=0.0, high=2.0)
    clean = torch.stack([torch.full((3, 4, 4), value) for value in (0.2, 0.6)])
    denoised = torch.stack([torch.full((3, 4, 4), value) for value in (0.5, 0.3)])
    losses = dms_iqa_losses(metric, denoised, clean)
    assert losses.mse.item() == pytest.approx(0.09)
    assert losses.target.item() == pytest.approx(0.15)
    assert losses.rank.item() == pytest.approx(2 * 0.1 / 4 / 1.1)
    people = torch.tensor([80.0, 20.0])
    assert dms_iqa_losses(metric, denoised, clean, order=people).rank.item() == 0
    both = dms_iqa_losses(metric, denoised, clean, order=people, both=True)
    assert both.rank.item() == pytest.approx(losses.rank.item() / 2)


def test_scores_are_scaled_by_the_proven_range_then_the_usual_one_and_turned_up():
    x = torch.full((1, 3, 2, 2), 0.25)
    assert scaled_scores(Brightness(low=0.0, high=0.5, usual=(0.0, 9.0)), x).item() == 0.5
    assert scaled_scores(Brightness(usual=(0.0, 1.0)), x).item() == 0.25
    assert scaled_scores(Brightness(low=0.0, high=1.0, lower_better=True), x).item() == 0.75
    with pytest.raises(ConfigError, match="no range"):
        score_range(Brightness(low=0.0))


def test_balanced_terms_are_as_large_as_the_first():
    balance = LossBalance((1.0, 2.0, 0.0))
    for _ in range(20):
        total = balance((tensor(0.01), tensor(0.5), tensor(7.0)))
    assert total.item() == pytest.approx(0.01 + 2 * 0.01)
    assert balance.weights().tolist() == pytest.approx([1.0, 0.04, 0.0])


def test_a_solved_term_is_not_raised_without_limit():
    balance = LossBalance((1.0, 1.0), floor=1e-4)
    balance((tensor(0.01), tensor(0.0)))
    assert balance.weights()[1].item() == pytest.approx(100)


def test_averages_follow_with_their_momentum_and_rest_in_evaluation():
    balance = LossBalance((1.0, 1.0), momentum=0.5)
    balance((tensor(1.0), tensor(1.0)))
    balance((tensor(1.0), tensor(4.0)))
    # Averages of 1 and 4 with weights 1/4 and 1/2.
    assert balance.weights()[1].item() == pytest.approx(1 / 3)
    balance.eval()
    balance((tensor(1.0), tensor(400.0)))
    assert balance.weights()[1].item() == pytest.approx(1 / 3)
    again = LossBalance((1.0, 1.0), momentum=0.5)
    again.load_state_dict(balance.state_dict())
    assert torch.equal(again.weights(), balance.weights())
