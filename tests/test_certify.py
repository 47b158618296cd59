import dataclasses
import functools
import itertools
import json
import math
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
from odd import FULL
from scipy import special, stats
from torch import nn
from torch.nn import functional as F

from resolute.attacks import PGD, ScoreGain
from resolute.certificates import DenoisedScorer, ExpectedScore, decided_at, width_below
from resolute.certificates import certify as certify_anew
from resolute.certificates.certificate import Smoothing, bounds_of
from resolute.certificates.noise import GaussianNoise, GridNoise, noise_for, normals, rounded_gaussian
from resolute.certificates.order_statistics import fixed_ranks, level, median_rank, median_slack, sequential_ranks
from resolute.images import sample_image
from resolute.models import QualityNet
from resolute.models.base import Scorer
from resolute.models.fitted import FittedScorer, resizing_norm
from resolute.models.scorers import load_scorer

SIZE = (8, 10)

# With a seed, so that tests repeat.
certify = functools.partial(certify_anew, seed=0)


class Linear(Scorer):
    """``w . x``: the scorer for which Theorem 1 is tight."""

    def __init__(self, low=None, high=None):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(3, *SIZE, generator=generator))
        self.low, self.high = low, high

    def arguments(self):
        return {"class": "Linear"}

    def forward(self, x):
        return (x * self.weight).sum(dim=(1, 2, 3))


class Curved(Scorer):
    """A brittle score: waves along one direction, short against the noise."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(3, generator=generator)
        self.weight = nn.Parameter(weight / weight.norm() / math.sqrt(SIZE[0] * SIZE[1]))

    def arguments(self):
        return {"class": "Curved"}

    def forward(self, x):
        return torch.sin(200 * torch.einsum("bchw,c->b", x, self.weight))


class Broken(Linear):
    def __init__(self, value, every):
        super().__init__()
        self.value, self.every, self.seen = value, every, 0

    def forward(self, x):
        scores = super().forward(x)
        places = torch.arange(self.seen, self.seen + len(x)) % self.every == 0
        self.seen += len(x)
        return torch.where(places, torch.tensor(self.value), scores)


def grey(value=0.5):
    return torch.full((3, *SIZE), value)


def photo(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *SIZE), generator=generator) / 255


# --- ranks


@pytest.mark.parametrize(
    ("n", "sigma", "epsilon", "low", "high"),
    [
        (1000, 0.12, 0.05, 293, 708),
        (2000, 0.12, 0.05, 612, 1389),
        (1000, 0.18, 0.05, 343, 658),
        (1000, 0.24, 0.05, 370, 631),
        (100, 0.12, 0.05, 20, 81),
        (1000, 0.12, 0.10, 164, 837),
        (1000, 0.12, 0.20, 28, 973),
    ],
)
def test_known_ranks(n, sigma, epsilon, low, high):
    ranks = fixed_ranks(n, level(epsilon, sigma), alpha=0.002)
    assert (ranks.low, ranks.high) == (low, high)


GRID = [
    (n, ratio, alpha)
    for n in (1, 5, 30, 100, 1000, 10_000, 100_000)
    for ratio in (0.0, 0.1, 5 / 12, 1.0, 2.0, 3.0)
    for alpha in (0.2, 0.05, 0.001, 1e-6)
]


@pytest.mark.parametrize(("n", "ratio", "alpha"), GRID)
def test_fixed_ranks_cover_and_are_the_tightest_that_do(n, ratio, alpha):
    # F(X_(k)) of a continuous law is Beta(k, n + 1 - k), so that coverage has a closed form.
    p = level(ratio, 1.0)
    ranks = fixed_ranks(n, p, alpha)

    def coverage(k):
        return stats.beta.cdf(p, k, n + 1 - k)

    if ranks.low is None:
        assert ranks.high is None
        assert coverage(1) < 1 - alpha / 2
    else:
        assert coverage(ranks.low) >= 1 - alpha / 2
        assert stats.beta.sf(1 - p, ranks.high, n + 1 - ranks.high) >= (1 - alpha / 2) * (1 - 1e-12)
        assert coverage(ranks.low + 1) < 1 - alpha / 2


@pytest.mark.parametrize("law", ["binary", "few values"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_discrete_scores_are_covered_whichever_median_is_meant(law, ratio):
    rng = np.random.default_rng(0)
    values, masses = ([0.0, 1.0], [0.5, 0.5]) if law == "binary" else ([0.0, 1.0, 2.0, 3.0], [0.2, 0.3, 0.1, 0.4])
    n, alpha, trials = 60, 0.1, 4000
    p = level(ratio, 1.0)
    ranks = fixed_ranks(n, p, alpha)
    cumulative = np.cumsum(masses)
    lowest = values[int(np.argmax(cumulative >= p - 1e-12))]  # inf{y : F(y) >= p_low}
    highest = values[int(np.argmax(cumulative > 1 - p + 1e-12))]  # sup{y : P[X < y] <= p_high}
    ordered = np.sort(rng.choice(values, (trials, n), p=masses), axis=1)
    missed = (ordered[:, ranks.low - 1] > lowest) | (ordered[:, ranks.high - 1] < highest)
    assert missed.mean() <= alpha + 3 * math.sqrt(alpha / trials)


@pytest.mark.parametrize(
    ("alpha", "ratio"), list(itertools.product((0.3, 0.05), (0.1, 5 / 12, 1.5)))[:: 1 if FULL else 2]
)
def test_sequential_ranks_hold_at_every_time(alpha, ratio):
    rng = np.random.default_rng(1)
    p, steps, trials = level(ratio, 1.0), 800, 3000
    successes = np.cumsum(rng.random((trials, steps)) < p, axis=1)
    lows = np.array([sequential_ranks(n, p, alpha, horizon=300).low or 0 for n in range(1, steps + 1)])
    # X_(low) > q_p exactly where fewer than low samples are at or below q_p.
    ever = (successes < lows).any(axis=1).mean()
    assert ever <= alpha / 2 + 3 * math.sqrt(alpha / 2 / trials)
    # Not by saying nothing: a fixed-n bound peeked at as often fails far more often than it may.
    peeked = np.array([fixed_ranks(n, p, alpha).low or 0 for n in range(1, steps + 1)])
    assert (successes < peeked).any(axis=1).mean() > alpha / 2
    assert lows[-1] > 0.6 * p * steps


@pytest.mark.parametrize(("n", "alpha"), [(1000, 0.002), (100, 0.002), (101, 0.05), (2000, 0.001)])
def test_the_sampled_median_is_within_its_slack(n, alpha):
    slack, rank = median_slack(n, alpha), median_rank(n)
    assert stats.beta.cdf(0.5 - slack, rank, n + 1 - rank) <= alpha / 2 * (1 + 1e-9)
    assert stats.beta.sf(0.5 + slack, rank, n + 1 - rank) <= alpha / 2 * (1 + 1e-9)


def test_too_few_samples_have_no_slack():
    with pytest.raises(ValueError, match="median of 1 "):
        median_slack(1, 1e-16)


@pytest.mark.parametrize(
    "call",
    [
        lambda: level(-0.1, 0.1),
        lambda: level(0.1, 0.0),
        lambda: level(0.1, 0.1, 0.5),
        lambda: level(math.nan, 0.1),
        lambda: fixed_ranks(0, 0.3, 0.1),
        lambda: fixed_ranks(10, 1.0, 0.1),
        lambda: sequential_ranks(10, 0.3, 1.0, 10),
        lambda: Smoothing(sigma=0.0),
        lambda: Smoothing(n=0),
        lambda: Smoothing(alpha=1.0),
    ],
)
def test_impossible_parameters_are_refused(call):
    with pytest.raises(ValueError, match="not"):
        call()


def test_radii_beyond_all_samples_give_nothing():
    for epsilon in (5.0, 60.0):
        assert fixed_ranks(1000, level(epsilon, 1.0), 0.001).low is None
        assert sequential_ranks(1000, level(epsilon, 1.0), 0.001, 1000).low is None


# --- noise


@pytest.mark.parametrize("kind", ["gaussian", "grid"])
def test_a_noisy_copy_depends_on_seed_image_and_index_alone(kind):
    noise = noise_for(kind, photo(), 0.1, seed=0)
    together, apart = torch.empty(6, 3, *SIZE), torch.empty(6, 3, *SIZE)
    noise.fill(together, 10)
    for i in (5, 0, 3, 1, 2, 4):
        noise.fill(apart[i : i + 1], 10 + i)
    assert torch.equal(together, apart)
    last = torch.empty(6, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    noise.fill(last, 10)
    assert torch.equal(last, together)
    for other in (noise_for(kind, photo(), 0.1, seed=1), noise_for(kind, photo(1), 0.1, seed=0)):
        fresh = torch.empty(6, 3, *SIZE)
        other.fill(fresh, 10)
        assert not torch.equal(fresh - photo(), together - photo())
    assert len({copy.numpy().tobytes() for copy in together}) == 6
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


def test_gaussian_noise_is_gaussian():
    out = torch.empty(400, 3, *SIZE)
    GaussianNoise(grey(), 0.05, 0).fill(out, 0)
    values = ((out - 0.5) / 0.05).flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3


def test_normals_have_the_law_out_to_the_tails_and_their_halves_are_independent():
    drawn = normals(np.random.Generator(np.random.Philox(key=3)), 6_000_001).double().numpy()
    assert stats.kstest(drawn[:500_000], "norm").pvalue > 1e-3
    for edge in (1.0, 2.0, 3.0, 4.0):
        expected = len(drawn) * stats.norm.sf(edge)
        for seen in ((drawn > edge).sum(), (drawn < -edge).sum()):
            assert abs(seen - expected) < 4.5 * math.sqrt(expected)
    half = (len(drawn) + 1) // 2
    pairs = drawn[: half - 1], drawn[half:]
    for a, b in (pairs, (np.abs(pairs[0]), np.abs(pairs[1])), (drawn[:-1], drawn[1:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(len(a))
    assert np.isfinite(drawn).all()


def test_the_ends_of_the_words_give_finite_normals(unchecked_shapes):
    class Ends:
        def random_raw(self, count):
            assert count == 5
            words = [0, 2**31 - 1, 2**31, 2**32 - 1, 1, 2**30, 0, 2**31 - 1, 2**31, 2**32 - 1]
            return np.array(words, dtype=np.uint32).view(np.uint64)

    drawn = normals(SimpleNamespace(bit_generator=Ends()), 10)
    assert torch.isfinite(drawn).all()
    assert 6.5 < float(drawn.abs().max()) < 6.7


def test_bfloat16_is_another_metric_with_a_certificate_of_its_own():
    metric = QualityNet((8, 12), hidden=4).eval()
    metric.card = metric.describe("small")
    image = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(1))
    exact, fast = (certify(metric, image, n=64, precision=name) for name in ("float32", "bfloat16"))
    assert not np.array_equal(exact.scores, fast.scores)
    assert np.allclose(exact.scores, fast.scores, atol=1.0)
    assert "bfloat16" in fast.words()
    assert "bfloat16" not in exact.words()
    torch.set_num_threads(2)
    assert np.array_equal(certify(metric, image, n=64, precision="bfloat16").scores, fast.scores)
    torch.set_num_threads(1)


@pytest.mark.parametrize("sigma", [0.004, 0.06, 0.12, *((0.5, 1.0) if FULL else (0.3,))])
def test_grid_noise_has_the_law_of_rounded_gaussian_noise(sigma):
    law = rounded_gaussian(sigma)
    scale = 255 * sigma
    # The exact law, from its integers.
    ends = [0, *map(int, law.ends), 2**64]
    weights = [end - begin for begin, end in itertools.pairwise(ends)]
    with mpmath.workdps(40):
        exact = 255 * mpmath.mpf(sigma)
        ideal = [
            mpmath.ncdf((j + 0.5) / exact) - mpmath.ncdf((j - 0.5) / exact)
            for j in range(law.least, law.least + len(weights))
        ]
        distance = sum(abs(mpmath.mpf(w) / 2**64 - q) for w, q in zip(weights, ideal, strict=True)) / 2
    assert distance <= law.total_variation < 2**-54
    draws = law.draw(np.random.Philox(key=5).random_raw, 200_000)
    edges = np.clip(np.arange(-4, 5) * max(scale / 2, 1), law.least + 1, -law.least - 1).round()
    edges = np.unique(edges)
    expected = np.diff(special.ndtr(np.concatenate([[-np.inf], edges + 0.5, [np.inf]]) / scale)) * len(draws)
    seen = np.histogram(draws, np.concatenate([[-np.inf], edges + 0.5, [np.inf]]))[0]
    keep = expected > 5
    assert stats.chisquare(seen[keep], expected[keep] * seen[keep].sum() / expected[keep].sum()).pvalue > 1e-3


def test_a_level_is_that_on_whose_share_the_whole_number_falls():
    law = rounded_gaussian(0.02)
    rng = np.random.default_rng(0)
    near = [int(end) for end in law.ends if 2**40 < int(end) < 2**64 - 2**40]
    numbers = [end + shift for end in near for shift in (-1, 0, 1)] + [int(n) << 12 for n in rng.integers(0, 2**52, 99)]
    for number in numbers:
        told = iter([[number >> 48], [(number & (2**48 - 1)) << 16]])
        (drawn,) = law.draw(lambda count, told=told: np.array(next(told)[:count], np.uint64), 1)
        assert drawn == law.least + sum(number >= int(end) for end in law.ends)


def test_grid_noise_stays_on_the_grid_and_moves_with_the_image():
    # Away from the borders the copies of x and of x + k/255 differ by exactly k/255 for the same draws.
    noise, moved = GridNoise(grey(100 / 255), 0.01, 0), GridNoise(grey(103 / 255), 0.01, 0)
    moved.key = noise.key
    first, second = torch.empty(5, 3, *SIZE), torch.empty(5, 3, *SIZE)
    noise.fill(first, 0)
    moved.fill(second, 0)
    assert torch.equal((first * 255).round() / 255, first)
    assert torch.equal((second * 255).round() - (first * 255).round(), torch.full_like(first, 3.0))


def test_grid_noise_needs_an_image_on_the_grid():
    with pytest.raises(ValueError, match="8-bit grid"):
        GridNoise(grey(0.5003), 0.1, 0)
    with pytest.raises(ValueError, match="sigma"):
        rounded_gaussian(0.0)


# --- certificates


def test_the_linear_scorer_meets_the_closed_form():
    scorer, sigma, epsilon, n = Linear(), 0.04, 0.02, 5000
    certificate = certify(scorer, grey(), sigma, epsilon, n, alpha=0.001)
    norm, centre = scorer.weight.norm().item(), (scorer.weight * 0.5).sum().item()
    upper, lower = centre + epsilon * norm, centre - epsilon * norm
    assert certificate.lower <= lower
    assert certificate.upper >= upper
    assert certificate.lower == pytest.approx(lower, abs=0.1 * sigma * norm)
    assert certificate.upper == pytest.approx(upper, abs=0.1 * sigma * norm)
    assert certificate.score == pytest.approx(centre, abs=0.06 * sigma * norm)
    # The perturbation along the weights reaches the bound exactly: Theorem 1 cannot be improved.
    worst = grey() + epsilon * scorer.weight.detach() / norm
    assert scorer(worst[None]).item() == pytest.approx(upper, rel=1e-5)


def test_coverage_on_the_linear_scorer():
    scorer, sigma, epsilon, alpha, trials = Linear(), 0.04, 0.02, 0.2, 60
    norm, centre = scorer.weight.norm().item(), (scorer.weight * 0.5).sum().item()
    missed = 0
    for seed in range(trials):
        found = certify(scorer, grey(), sigma, epsilon, n=64, alpha=alpha, seed=seed)
        missed += found.lower > centre - epsilon * norm or found.upper < centre + epsilon * norm
    assert missed / trials <= alpha + 3 * math.sqrt(alpha / trials)
    assert missed > 0


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_an_adaptive_attack_does_not_leave_the_interval(noise):
    scorer, sigma, epsilon = Curved(), 0.06, 0.05
    outside = 0
    for seed in range(4 if FULL else 2):
        x = photo(seed)
        certificate = certify(scorer, x, sigma, epsilon, n=400, alpha=0.01, noise=noise)
        for sign in (1, -1):
            pgd = PGD(epsilon=epsilon, steps=20, relative_step=0.2, norm="l2", objective=ScoreGain(sign), start="zero")
            found = pgd(ExpectedScore(scorer, sigma, draws=32), x[None]).unrounded[0]
            assert float((found - x).norm()) <= epsilon * 1.0001
            attacked = certify(scorer, found, sigma, 0.0, n=500, alpha=0.01, seed=99)
            # The true median of the attacked image is outside only if all of its own interval is.
            outside += attacked.upper < certificate.lower or attacked.lower > certificate.upper
    assert outside == 0


def test_the_attack_has_teeth():
    scorer, x = Curved(), photo()
    pgd = PGD(epsilon=0.01, steps=20, relative_step=0.2, norm="l2", objective=ScoreGain(1), start="zero")
    found = pgd(scorer, x[None]).unrounded
    undefended = (scorer(found) - scorer(x[None])).abs().item()
    certificate = certify(scorer, x, 0.06, 0.01, n=1000)
    assert undefended > 2 * certificate.delta


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_threads_and_denoisers_that_do_nothing_change_no_bit(noise):
    plain = certify(Curved(), photo(), n=101, noise=noise)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        again = certify(Curved(), photo(), n=101, noise=noise)
        assert torch.get_num_threads() == threads
        assert np.array_equal(again.scores, plain.scores)
    torch.set_num_threads(1)
    behind = certify(DenoisedScorer(Curved(), nn.Identity()), photo(), n=101, noise=noise)
    assert np.array_equal(behind.scores, plain.scores)
    assert (behind.lower, behind.score, behind.upper) == (plain.lower, plain.score, plain.upper)
    longer = certify(Curved(), photo(), n=333, noise=noise)
    assert np.array_equal(longer.scores[:101], plain.scores)


@pytest.mark.parametrize("threads", [1, 2])
def test_copies_that_are_scored_together_get_the_scores_of_any_number_of_them(threads):
    metric = load_scorer("quality-s")
    image = sample_image("coffee")[:, :32, :40]
    sizes = []
    metric.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    torch.set_num_threads(threads)
    few, many = (certify(metric, image, n=n, seed=0) for n in (33, 41))
    torch.set_num_threads(1)
    assert set(sizes) == {8}
    assert np.array_equal(few.scores, many.scores[:33])
    sizes.clear()
    metric.independent = False
    certify(metric, image, n=9, seed=0)
    assert set(sizes) == {1}


def test_order_and_curve():
    certificate = certify(Curved(), photo(), n=300, alpha=0.01)
    epsilons = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    curve = certificate.curve(epsilons)
    assert all(bounds.lower <= certificate.score <= bounds.upper for bounds in curve)
    assert all(a.lower >= b.lower and a.upper <= b.upper for a, b in itertools.pairwise(curve))
    assert certificate.at(0.05) == certificate.bounds
    assert curve[-1].vacuous
    assert curve[-1].width == math.inf
    assert not curve[3].vacuous
    assert certificate.delta == max(certificate.upper - certificate.score, certificate.score - certificate.lower)


def test_vacuous_sides_show_the_proven_range():
    bounded = certify(Linear(low=-1000.0, high=1000.0), grey(), n=20, epsilon=0.3)
    assert bounded.bounds.vacuous
    assert (bounded.lower, bounded.upper) == (-1000.0, 1000.0)
    assert "says nothing" in bounded.words()
    with pytest.raises(ValueError, match=r"\[0, 1\].*proven"):
        certify(Linear(low=0.0, high=1.0), grey(), n=20)


def test_the_largest_radius_keeps_its_promise():
    scorer, sigma = Linear(), 0.04
    norm = scorer.weight.norm().item()
    certificate = certify(scorer, grey(), sigma, 0.01, n=2000)
    delta = 0.03 * norm
    radius = certificate.largest_epsilon(delta)
    assert certificate.shift(radius) <= delta
    assert 0.5 * 0.03 < radius < 0.03  # the truth is delta / ||w||
    assert certificate.largest_epsilon(0.0) == 0.0
    assert certificate.largest_epsilon(math.inf) == 8 * sigma
    shifts = [certificate.shift(epsilon) for epsilon in (0.0, 0.01, 0.02, 0.05)]
    assert shifts == sorted(shifts)


def test_end_to_end_is_wider_and_covers_deployed_medians():
    scorer, sigma, epsilon = Linear(), 0.04, 0.02
    plain = certify(scorer, grey(), sigma, epsilon, n=512, alpha=0.05)
    whole = certify(scorer, grey(), sigma, epsilon, n=512, alpha=0.05, deployed=64)
    assert whole.lower < plain.lower
    assert whole.upper > plain.upper
    worst = grey() + epsilon * scorer.weight.detach() / scorer.weight.norm()
    deployed = [certify(scorer, worst.detach(), sigma, 0.0, n=64, seed=k).score for k in range(60)]
    assert np.mean([score > whole.upper for score in deployed]) <= 0.05
    assert np.mean([score > plain.upper for score in deployed]) > np.mean([score > whole.upper for score in deployed])
    assert "fresh samples" in whole.words()


@pytest.mark.parametrize(("value", "every"), [(math.nan, 50), (math.inf, 7), (-math.inf, 1)])
def test_scores_that_are_not_finite_abstain(value, every):
    certificate = certify(Broken(value, every), grey(), n=100, trusted=True)
    assert certificate.abstained
    assert certificate.non_finite == len(range(0, 100, every))
    assert math.isnan(certificate.score)
    assert (certificate.lower, certificate.upper) == (-math.inf, math.inf)
    assert "nothing" in certificate.words()


def test_sequential_mode_stops_and_says_what_it_saved():
    scorer, x = Linear(), grey()
    norm = scorer.weight.norm().item()
    whole = certify(scorer, x, 0.04, 0.01, n=2000)
    early = certify(scorer, x, 0.04, 0.01, n=2000, stop=width_below(2 * whole.bounds.width))
    assert early.samples < 1000
    assert early.bounds.width <= 2 * whole.bounds.width
    assert early.smoothing.sequential
    assert np.array_equal(early.scores, whole.scores[: early.samples])
    decided = certify(scorer, x, 0.04, 0.01, n=2000, stop=decided_at(whole.score - 0.05 * norm))
    assert decided.samples < early.samples * 2
    assert decided.lower > whole.score - 0.05 * norm
    never = certify(scorer, x, 0.04, 0.01, n=200, stop=width_below(0.0))
    assert never.samples == 200
    assert never.bounds.width > whole.bounds.width


def test_the_record_is_json_and_enough_to_do_it_again():
    certificate = certify(Curved(), photo(), n=50, noise="grid", seed=4)
    record = json.loads(json.dumps(certificate.as_record()))
    made = Smoothing(**record["smoothing"])
    again = certify(
        Curved(), photo(), made.sigma, record["bounds"]["epsilon"], made.n, made.alpha, seed=made.seed,
        noise=made.noise, deployed=made.deployed,
    )  # fmt: skip
    assert again.as_record() == certificate.as_record()
    assert record["bounds"]["ranks"] == dataclasses.asdict(certificate.bounds.ranks)
    assert record["size"] == list(SIZE)
    assert record["image_sha256"] == certificate.image_sha256
    assert record["error"] > certificate.smoothing.alpha
    wide = certify(Curved(), photo(), n=5).as_record()
    assert wide["bounds"]["lower"] is None


def test_words_say_what_is_not_guaranteed():
    native = certify(Curved(), photo(), n=200).words()
    assert "rounding" in native
    assert "may stray" in native
    assert "seed" in native
    assert "seed" not in certify_anew(Curved(), photo(), n=200).words()
    assert "8-bit grid" in certify(Curved(), photo(), n=200, noise="grid").words()
    resized = certify(Curved(), photo(), n=200, size=(4, 6))
    assert resized.size == (4, 6)
    assert "6 x 4" in resized.words()


def test_unless_it_is_given_the_seed_is_drawn_once_the_image_is_fixed():
    first, second = (certify_anew(Curved(), photo(), n=40) for _ in range(2))
    assert first.smoothing.seed != second.smoothing.seed
    assert first.smoothing.drawn
    assert not np.array_equal(first.scores, second.scores)
    again = certify(Curved(), photo(), n=40, seed=first.smoothing.seed)
    assert np.array_equal(again.scores, first.scores)
    assert not again.smoothing.drawn


@pytest.mark.parametrize("new", [(30, 40), (29, 17), (50, 50), (48, 70)])
def test_resizing_lengthens_no_change_beyond_its_norm_and_one_by_all_of_it(new):
    size = (48, 50)
    norm = resizing_norm(size, new)
    resize = functools.partial(F.interpolate, size=new, mode="bicubic", antialias=True)
    # Power iteration on the map, both ways.
    x = torch.rand(1, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(300):
        x = (x / x.norm()).requires_grad_()
        (x,) = torch.autograd.grad(resize(x).square().sum() / 2, x)
    longest = float(resize(x / x.norm()).norm())
    assert norm * (1 - 1e-3) < longest <= norm


def test_a_shrunk_image_is_certified_for_changes_of_the_file():
    scorer, x = Linear(), 0.25 + 0.5 * torch.rand(3, 16, 20, generator=torch.Generator().manual_seed(0))
    made = certify(scorer, x, 0.04, 0.05, n=800, size=SIZE)
    assert made.norm == resizing_norm((16, 20), SIZE) < 0.6
    # The worst change of the file, found through resizing.
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(scorer(F.interpolate(x[None], SIZE, mode="bicubic", antialias=True))[0], x)
    moved = x.detach() + 0.05 * gradient / gradient.norm()
    assert made.lower <= certify(scorer, moved, 0.04, 0.0, n=800, size=SIZE, seed=7).score <= made.upper
    # The same radius at the size of the noise is a larger one of the file.
    at_noise = dataclasses.replace(made, norm=1.0)
    assert at_noise.at(0.05 * made.norm).lower == made.lower
    assert made.largest_epsilon(1.0) == pytest.approx(at_noise.largest_epsilon(1.0) / made.norm, rel=1e-6)


def test_exact_noise_is_for_the_pixels_of_the_file():
    with pytest.raises(ValueError, match="8-bit grid"):
        certify(Curved(), photo(), noise="grid", size=(4, 6), n=20)
    inside = certify(FittedScorer(Curved(), 6), photo(), noise="grid", n=20)
    assert (inside.size, inside.norm) == (SIZE, 1.0)


class Random(Scorer):
    def arguments(self):
        return {"class": "Random"}

    def forward(self, x):
        return torch.rand(len(x))


def test_a_metric_that_is_no_function_is_refused_unless_it_is_trusted():
    with pytest.raises(ValueError, match="trusted"):
        certify(Random(), grey(), n=20)
    known = Linear()
    known.card = dataclasses.replace(known.describe("known"), deterministic=False)
    with pytest.raises(ValueError, match="known"):
        certify(known, grey(), n=20)
    assert "equal images" in certify(known, grey(), n=20, trusted=True).words()


def test_too_few_samples_say_how_many_it_takes():
    few = certify(Curved(), photo(), epsilon=0.2, n=20)
    needed = few.needed(0.2)
    assert few.bounds.vacuous
    assert f"{needed:,}" in few.words()
    p_low = level(0.2, 0.12)
    assert fixed_ranks(needed, p_low, 0.001).low == 1
    assert fixed_ranks(needed - 1, p_low, 0.001).low is None
    assert few.needed(9.0) == math.inf


def test_progress_and_the_scorer_as_it_was():
    scorer, seen = Curved().train(), []
    certify(scorer, photo(), n=33, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 33), (33, 33)]
    assert scorer.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in scorer.parameters())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 4, 4), "float tensor"),
        (torch.zeros(1, 4, 4), "float tensor"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "float tensor"),
        (torch.full((3, 4, 4), 2.0), r"in \[0, 1\]"),
        (torch.full((3, 4, 4), math.nan), r"in \[0, 1\]"),
    ],
)
def test_images_that_are_none_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        certify(Linear(), image)


def test_impossible_questions_are_refused_before_sampling():
    class Never(Linear):
        def forward(self, x):
            raise AssertionError("sampled")

    with pytest.raises(ValueError, match="epsilon"):
        certify(Never(), grey(), epsilon=-1.0)
    with pytest.raises(ValueError, match="smoothing needs"):
        certify(Never(), grey(), alpha=0.0)


def test_halves_of_a_two_sided_bound_are_each_a_bound():
    ordered = np.arange(1.0, 1001.0)
    bounds = bounds_of(ordered, 0.05, Smoothing(alpha=0.002), -math.inf, math.inf)
    assert (bounds.lower, bounds.upper) == (293.0, 708.0)


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_a_crop_is_an_image_like_any_other(noise):
    whole = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    crop = whole[:, 3:11, 5:15]
    assert not crop.is_contiguous()
    scores = [certify(Curved(), x, n=40, noise=noise).scores for x in (crop, crop.contiguous())]
    assert np.array_equal(*scores)
