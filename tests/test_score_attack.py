"""The attack on scores: as strong as what it replaced, inside its ball, on the grid of a file."""

import pytest
import torch

from resolute import ConfigError, as_scorer, load_scorer
from resolute.attacks.gradient import PGD
from resolute.attacks.objective import ScoreGain
from resolute.attacks.score import ScoreAttack, SmoothedGain, noisy_scores, norms, onto_grid
from resolute.certificates.median import DenoisedScorer, ExpectedScore
from resolute.images import sample_image


@pytest.fixture(scope="module")
def metric():
    return load_scorer("quality-s")


def score(metric, image):
    with torch.no_grad():
        return float(metric(image[None]))


def on_grid(image):
    return torch.equal((image * 255).round() / 255, image)


# Scores that the two former attacks reached with ten steps: PGD with steps of a quarter of the radius and I-FGSM at
# 4/255; in the l2 ball of 0.5 changes by one level, and PGD rounded towards the clean image.
FORMER = {"coffee": (90.1, 94.8, 48.5, 49.5), "chelsea": (94.0, 97.1, 71.1, 75.5), "rocket": (90.2, 93.8, 70.6, 78.8)}


@pytest.mark.parametrize("name", FORMER)
def test_it_is_the_strongest_of_those_that_it_replaced(name, metric):
    image = sample_image(name)[:, :64, :64]
    found = ScoreAttack(epsilon=4 / 255)(metric, image)["transferred"]
    assert score(metric, found) > max(FORMER[name][:2]) - 0.1
    assert norms(found - image)[0] <= 4.001 / 255
    assert on_grid(found)
    found = ScoreAttack(epsilon=0.5, norm="l2")(metric, image)["transferred"]
    assert score(metric, found) > max(FORMER[name][2:]) + 3
    assert norms(found - image)[1] <= 0.5 * (1 + 1e-5)
    assert on_grid(found)


def test_off_the_grid_radii_too_small_for_a_level_have_an_effect(metric):
    image = sample_image("coffee")[:, :48, :48]
    attack = ScoreAttack(epsilon=0.002, norm="l2", grid=False)
    found = attack(metric, image)["transferred"]
    assert 0 < norms(found.double() - image.double())[1] <= 0.002
    assert score(metric, found) > score(metric, image)
    plain = PGD(epsilon=0.002, steps=10, relative_step=0.25, start="tiny", objective=ScoreGain(1), norm="l2")
    assert score(metric, found) == pytest.approx(score(metric, plain(metric, image[None]).unrounded[0]), abs=0.01)


def test_rounding_keeps_the_largest_entries_and_the_ball():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 256, (3, 9, 9), generator=generator) / 255
    change = torch.randn(clean.shape, generator=generator)
    for levels in (1.0, 2.0, 5.5, 40.0):
        moved = (255 * (onto_grid((clean + change / 2550).clamp(0, 1), clean, levels / 255) - clean)).round()
        assert 0.6 * levels**2 <= float(moved.square().sum()) <= levels**2
    few = (255 * (onto_grid((clean + change / 2550).clamp(0, 1), clean, 2.0 / 255) - clean)).round().flatten()
    free = ((clean + change / 255).clamp(0, 1) - clean).abs().flatten()
    assert set(few.nonzero().flatten().tolist()) <= set(free.topk(12).indices.tolist())
    assert torch.equal(onto_grid(clean, clean, 1.0), clean)


def test_the_smoothed_gain_is_the_mean_over_noise_and_its_gradient(metric):
    image = sample_image("coffee")[None, :, :40, :40].requires_grad_()
    noise = torch.randn((1, 6, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    plain = ExpectedScore(metric, 0.12).under(image, noise)
    assert torch.allclose(plain, noisy_scores(metric, image, 0.12, noise).mean(dim=1))
    # Six draws are two shares, of which one is computed twice.
    gain = SmoothedGain(-1, 0.12, 6).bind(metric, image)
    values = torch.stack([gain(image).squeeze() for _ in range(20)])
    assert values.std() > 0
    assert -values.mean().item() == pytest.approx(plain.item(), abs=4 * values.std().item())
    (gradient,) = torch.autograd.grad(gain(image).sum(), image)
    assert gradient.abs().sum() > 0


def test_adaptive_attacks_climb_through_what_stands_before_the_metric(metric):
    # A denoiser that keeps one channel: what moves the defended score is a change of that one alone.
    class Red(torch.nn.Module):
        def forward(self, x):
            return x[:, :1].expand(-1, 3, -1, -1)

    blue = as_scorer(lambda x: x[:, 2].mean(dim=(1, 2)), name="blue", low=0.0, high=1.0)
    image, behind = torch.full((3, 8, 8), 0.4), DenoisedScorer(blue, Red())
    steps = []
    attack = ScoreAttack(epsilon=4 / 255, adaptive=True, draws=2)
    found = attack(blue, image, defended=behind, sigma=0.1, progress=lambda done, total: steps.append((done, total)))
    assert set(found) == {"transferred", "adaptive"}
    assert score(behind, found["transferred"]) < score(behind, found["adaptive"])
    assert steps == [(done, 20) for done in range(1, 21)]
    again = attack(blue, image, defended=behind, sigma=0.1)
    assert torch.equal(again["adaptive"], found["adaptive"])


def test_settings_are_checked():
    for wrong in ({"epsilon": 0.0}, {"epsilon": 2.0}, {"steps": 0}, {"draws": 0}, {"epsilon": 0.001}):
        with pytest.raises(ConfigError):
            ScoreAttack(**{"epsilon": 4 / 255, **wrong})
    # Its slope is infinite where two neighbours are equal, as they are where a start beside black is clipped.
    kinked = as_scorer(lambda x: x.diff(dim=-1).abs().sqrt().mean(dim=(1, 2, 3)), "kinked")
    with pytest.raises(ConfigError, match="kinked"):
        ScoreAttack(epsilon=4 / 255)(kinked, torch.zeros(3, 32, 32))
