"""Certificates of upscaled images, against closed forms, simulation and attacks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import special
from typer.testing import CliRunner

from resolute import Tiled, certify_restoration, load_defended, run
from resolute.certificates import downscaled, region_mean, score_of
from resolute.certificates.order_statistics import fixed_ranks, level
from resolute.certificates.restored import needed
from resolute.certificates.samples import Samples
from resolute.certificates.spread import Around, Spread, largest_eigenvalue
from resolute.cli import app
from resolute.defences.wrappers import Confined
from resolute.engine.store import Store
from resolute.images import from_uint8, read_image, sample_image, to_uint8, write_png
from resolute.models import EDSR, Bicubic, as_scorer
from resolute.report.reading import read_source
from resolute.resize import downscale, upscale_tensor
from resolute.studies.record import read_record
from resolute.studies.restoration import Restoration
from resolute.studies.restored import RestorationRecord

GREY = torch.full((3, 6, 6), 0.5)
SIGMA, RADIUS = 0.05, 0.025


def linear_map(side: int = 6, scale: int = 2) -> np.ndarray:
    """One channel of bicubic interpolation as a matrix."""
    lights = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side).expand(-1, 3, -1, -1)
    return upscale_tensor(lights, scale)[:, 0].reshape(side * side, -1).T.numpy()


@pytest.fixture(scope="module")
def certificate():
    """Of bicubic interpolation far from 0 and 1: noise through a linear map is Gaussian, and all is known."""
    statistics = (region_mean(2, 2, 8, 8), downscaled(2))
    return certify_restoration(Bicubic(2), GREY, SIGMA, RADIUS, n=1000, seed=3, statistics=statistics)


def test_pixels_hold_what_is_exact_and_are_as_tight_as_ranks_allow(certificate):
    gains = torch.tensor(np.linalg.norm(linear_map(), axis=1)).float().view(1, 12, 12).expand(3, -1, -1)
    bounds = certificate.bounds()
    assert bool((bounds.upper >= 0.5 + RADIUS * gains).all())
    assert bool((bounds.lower <= 0.5 - RADIUS * gains).all())
    rank = fixed_ranks(1000, level(RADIUS, SIGMA), 0.001 / 432).high
    expected = float(special.ndtri(rank / 1001)) * SIGMA * gains
    assert (bounds.upper - 0.5 - expected).abs().max() < 0.25 * expected.max()
    assert abs((bounds.upper - 0.5).mean() / expected.mean() - 1) < 0.02


def test_a_region_is_tighter_than_its_pixels_and_right(certificate):
    found, pixels = certificate.bounds("mean of 2,2,8,8"), certificate.bounds()
    gain = np.linalg.norm(linear_map().reshape(12, 12, -1)[2:10, 2:10].mean(axis=(0, 1))) / math.sqrt(3)
    assert RADIUS * gain <= float(found.upper) - 0.5 < 2 * RADIUS * gain
    assert found.widest < 0.5 * float((pixels.upper - pixels.lower)[:, 2:10, 2:10].mean())
    assert certificate.bounds("shrunk by 2").widest < pixels.widest


def test_the_mean_is_bounded_by_the_operator_norm_and_not_by_the_sum_over_pixels(certificate):
    sigma, t = np.linalg.norm(linear_map(), 2), RADIUS / SIGMA
    spread = certificate.spread
    exact = SIGMA * sigma
    assert exact <= math.sqrt(spread.eigenvalue) < 4 * exact
    assert spread.mean(RADIUS) > RADIUS * sigma
    # What is left without sampling: the bound over the truth goes to 1 with the radius.
    ideal = Spread(
        sigma=SIGMA, alpha=0.001, values=432, distances=(1.0,) * 10**6, reach=1.0, cut=1.0, beyond=0.0, counted=10**9,
        largest=exact**2,
    )  # fmt: skip
    assert math.sqrt(math.expm1(t * t)) * exact <= ideal.mean(RADIUS) < 1.01 * math.sqrt(math.expm1(t * t)) * exact
    assert ideal.mean(RADIUS / 50) < 1.02 * RADIUS / 50 * sigma


def test_a_confined_model_has_a_better_bound_for_the_mean():
    model = Confined(EDSR(2, 1, 4), 0.05)
    found = certify_restoration(model, GREY, SIGMA, RADIUS, n=160, seed=0).spread
    assert found.near < found.reach
    plain = certify_restoration(model.inner, GREY, SIGMA, RADIUS, n=160, seed=0).spread
    assert plain.near == math.inf
    assert found.mean(0.005) < plain.mean(0.005)
    assert all(distance < found.near for distance in found.distances)


def test_noise_that_is_rounded_may_be_longer():
    """Where the grid is coarser than the noise; interpolation by 1 keeps its length."""
    found = certify_restoration(
        Confined(Bicubic(1), 1e-6), torch.full((3, 32, 32), 0.2), 0.0015, 0.0002, n=128, seed=0, noise="grid"
    ).spread
    assert max(found.distances) < found.near


def test_centre_smoothing_is_what_the_distances_say(certificate):
    spread = certificate.spread
    rank = math.ceil(special.ndtr(RADIUS / SIGMA) * len(spread.distances))
    assert 2 * spread.distances[rank - 1] < spread.centre(RADIUS) < 2.3 * spread.distances[rank - 1]
    assert certificate.at(4 * SIGMA).spread.centre(4 * SIGMA) == math.inf


def test_all_pixels_fail_together_no_more_often_than_alpha():
    gains = torch.tensor(np.linalg.norm(linear_map(4), axis=1)).float().view(1, 8, 8).expand(3, -1, -1)
    failures, alpha, runs = 0, 0.2, 15
    for seed in range(runs):
        found = certify_restoration(Bicubic(2), GREY[:, :4, :4], SIGMA, RADIUS, n=96, alpha=alpha, seed=seed)
        bounds = found.bounds()
        inside = (bounds.upper >= 0.5 + RADIUS * gains) & (bounds.lower <= 0.5 - RADIUS * gains)
        failures += not bool(inside.all())
    # As many as binomial chance lets through once in a thousand at most.
    assert failures <= special.bdtrik(0.999, runs, alpha)


def test_attacks_through_the_noise_at_exactly_the_radius_stay_inside():
    torch.manual_seed(0)
    model = EDSR(2, 1, 4).eval()
    outside = 0
    for seed in range(2):
        image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.2
        found = certify_restoration(model, image, SIGMA, RADIUS, n=200, seed=None)
        bounds, noise = found.bounds(), torch.randn(16, 3, 6, 6) * SIGMA
        u = torch.randn_like(image)
        for _ in range(8):
            u = (RADIUS * u / u.norm()).requires_grad_()
            moved = model((image + u + noise).clamp(0, 1)).clamp(0, 1).mean(0) - found.mean
            (gradient,) = torch.autograd.grad(moved.square().sum(), u)
            u = (u + 0.5 * RADIUS * gradient / gradient.norm()).detach()
        u = RADIUS * u / u.norm()
        attacked = certify_restoration(model, image + u, SIGMA, 1e-4, n=200, seed=None)
        true = attacked.bounds()
        outside += bool(((true.upper < bounds.lower) | (true.lower > bounds.upper)).any())
        distance = float((attacked.mean - found.mean).norm())
        assert distance > 0.2 * RADIUS
        assert distance < found.spread.mean(RADIUS) + found.spread.sampling + attacked.spread.sampling
    assert outside == 0


def test_nothing_but_the_noise_changes_a_number():
    image = torch.rand(3, 10, 18, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    model = EDSR(2, 1, 4).eval()

    def certified(of, **more):
        return certify_restoration(of, image, 0.02, 0.005, n=160, seed=5, **more)

    threads = torch.get_num_threads()
    one = certified(model)
    torch.set_num_threads(2)
    two = certified(model)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(one.lower, two.lower)
    assert torch.equal(one.output, two.output)
    assert one.spread == two.spread
    tiled = certified(Tiled(model, tile=16))
    assert torch.allclose(one.upper, tiled.upper, atol=1e-5)
    assert model.training is False
    # With too little memory for all samples the bracket holds the exact rank, and is narrow.
    bracketed = certified(model, memory=1_200_000)
    assert one.samples.exact
    assert not bracketed.samples.exact
    assert bool((bracketed.lower <= one.lower).all() and (bracketed.upper >= one.upper).all())
    assert float((one.lower - bracketed.lower).max()) < 0.1 * float((one.upper - one.lower).mean())


def test_histograms_bracket_every_rank():
    values = torch.rand(200, 7, generator=torch.Generator().manual_seed(0)) ** 3
    values[:, 0], values[50:, 1] = 0.25, 1.0  # constant, and beyond all bins
    whole, rough = Samples(200, 7, 10**6), Samples(200, 7, 7 * 256 * 2)
    for samples in (whole, rough):
        for block in values.split(32):
            samples.add(block)
        samples.settle()
    assert (whole.exact, rough.exact, rough.kept) == (True, False, 0)
    for rank in (1, 2, 60, 100, 199, 200):
        exact = whole.bracket(rank)[0]
        assert torch.equal(exact, values.sort(dim=0).values[rank - 1])
        low, high = rough.bracket(rank)
        assert bool(((low <= exact) & (exact <= high)).all())
    low, high = rough.bracket(100)
    assert float((high - low)[3:].max()) < 0.05


@pytest.mark.parametrize("count", [40, 2100])
def test_the_largest_eigenvalue_is_that_of_the_outputs_around_the_centre(count):
    rows = torch.randn(count, 30, generator=torch.Generator().manual_seed(0)) + 3
    factors, centre = torch.linspace(0.5, 1, count), torch.full((30,), 2.9)
    differences = ((rows - centre) * factors[:, None]).double()
    expected = float(torch.linalg.matrix_norm(differences, 2)) ** 2 / count
    found = largest_eigenvalue(rows, centre, factors)
    # Where it is found by steps, their share is added.
    assert expected < found < expected * (1.001 if count == 40 else 1.03)


def test_the_covariance_is_bounded_wherever_the_centre_is():
    drawn = torch.Generator().manual_seed(0)
    scales = torch.linspace(0.01, 0.1, 20)
    failures = 0
    for _ in range(40):
        around = Around(300)
        rows = 0.5 + scales * torch.randn(800, 20, generator=drawn).clamp(-3, 3)
        for block in rows.split(32):
            around.add(block)
        spread = around.spread(rows, 0.1, 0.3)
        failures += spread.eigenvalue < 0.99 * 0.1**2
        assert spread.eigenvalue < 4 * 0.1**2
        assert spread.counted == len(spread.distances) == 800 - 320 - 32
    assert failures <= special.bdtrik(0.999, 40, 0.1)


def test_a_truth_is_bounded_from_both_sides(certificate):
    truth = torch.full((3, 12, 12), 0.5)
    worst, best = certificate.psnr_to(truth)
    assert worst <= certificate.psnr_to(certificate.output)[0] + 1
    assert best == math.inf
    assert certificate.psnr_to(torch.zeros(3, 12, 12))[1] < 20
    assert certificate.psnr_to_by_mean(truth) < certificate.sr_psnr_mean()
    with pytest.raises(ValueError, match="truth"):
        certificate.psnr_to(truth[:, 1:])


def test_a_score_of_the_output_is_bounded():
    brightness = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="brightness", low=0.0, high=1.0)
    found = certify_restoration(Bicubic(2), GREY, SIGMA, 0.01, n=96, seed=0, statistics=[score_of(brightness)])
    bounds = found.bounds("score by brightness")
    assert 0.49 < float(bounds.lower) < float(found.value("score by brightness")) < float(bounds.upper) < 0.51


def test_words_say_what_is_promised_and_what_is_not(certificate):
    words = certificate.words()
    for part in ("99.9 %", "0.025", "seed", "without noise", "432"):
        assert part in words
    grid = certify_restoration(Bicubic(2), (GREY * 255).round() / 255, SIGMA, 0.01, n=96, noise="grid")
    assert "8-bit grid" in grid.words()
    assert grid.error > grid.smoothing.alpha


def broken():
    model = EDSR(2, 1, 4).eval()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    return model


def restless():
    model = EDSR(2, 1, 4)
    model.register_forward_hook(lambda module, inputs, output: output + 0.01 * torch.rand_like(output))
    return model


@pytest.mark.parametrize(
    ("model", "settings", "kind", "told"),
    [
        (Bicubic(2), {"sigma": 0.01, "epsilon": 0.05}, ValueError, "it takes 47,686,207"),
        (Bicubic(2), {"sigma": 0.001, "epsilon": 0.05}, ValueError, "no number of samples"),
        (Bicubic(2), {"sigma": 0.6}, ValueError, "leaves nothing"),
        (Bicubic(2), {"n": 95}, ValueError, "it takes 96"),
        (Bicubic(2), {"memory": 1000}, MemoryError, "allow more memory"),
        (restless(), {}, ValueError, "different outputs"),
        (broken(), {}, FloatingPointError, "not finite"),
    ],
)
def test_bad_input_is_said_in_a_line(model, settings, kind, told):
    with pytest.raises(kind, match=told) as caught:
        certify_restoration(model, GREY, **{"n": 200, "epsilon": 0.005, "seed": 0, **settings})
    assert "\n" not in str(caught.value)


def test_regions_and_names_are_checked():
    with pytest.raises(ValueError, match="leaves the output"):
        certify_restoration(Bicubic(2), GREY, n=96, epsilon=0.001, statistics=[region_mean(8, 8, 5, 5)])
    with pytest.raises(ValueError, match="X,Y,W,H"):
        region_mean(0, 0, 0, 5)
    with pytest.raises(ValueError, match="one name"):
        certify_restoration(Bicubic(2), GREY, n=96, epsilon=0.001, statistics=[downscaled(2), downscaled(2)])


def test_a_union_over_a_photograph_costs_few_samples(certificate):
    one, all_of_them = needed(RADIUS, certificate.smoothing, 1), needed(RADIUS, certificate.smoothing, 3 * 480 * 320)
    assert all_of_them < 3 * one


def call(*arguments):
    return CliRunner().invoke(app, ["certify-restoration", *map(str, arguments)])


def test_the_command_writes_images_that_hold_and_says_what_is_proven(tmp_path):
    write_png(tmp_path / "coffee.png", sample_image("coffee")[:, 100:148, 200:248])
    out = tmp_path / "out"
    asked = (
        tmp_path / "coffee.png", "--truth", "--model", "bicubic+confine=0.05", "--sigma", 0.05, "--radius", 0.01,
        "--radius", 0.02, "--samples", 128, "--region", "8,8,16,16", "--seed", 1, "--out", out,
    )  # fmt: skip
    done = call(*asked)
    assert done.exit_code == 0, done.output
    near, far = sorted(Store(out).read(), key=lambda record: record.epsilon)
    assert near.certified_median > far.certified_median
    assert near.certified_mean > far.certified_mean
    assert near.certified_truth_median < near.median_psnr < near.plain_psnr + 1
    assert [one.name for one in near.statistics] == ["mean of 8,8,16,16", "shrunk by 4"]
    assert near.statistics[0].lower < near.statistics[0].value < near.statistics[0].upper
    lower, upper, defended = (read_image(out / kind / f"{near.key}.png") for kind in ("lower", "upper", "defended"))
    assert bool(((lower <= defended) & (defended <= upper)).all())
    # With the seed given, the files hold what the function certifies, rounded outwards.
    low = from_uint8(downscale(to_uint8(read_image(tmp_path / "coffee.png")), 4))
    model = load_defended("bicubic+confine=0.05", 4)
    exact = certify_restoration(model, low, 0.05, 0.01, n=128, seed=1)
    assert bool((lower <= exact.lower).all() and (upper >= exact.upper).all())
    assert float((exact.lower - lower).max()) <= 1 / 255 + 1e-6
    page = (out / "report.html").read_text()
    assert "lower image" in page
    assert "how far each pixel may move" in page
    assert "covariance" in page


def test_runs_of_other_settings_into_one_folder_are_rows_of_their_own(tmp_path):
    write_png(tmp_path / "in" / "grey.png", torch.full((3, 6, 6), 0.4))
    study = Restoration(models=("bicubic",), images=(str(tmp_path / "in"),), high_resolution=False, scale=2, samples=96)
    for one in (study, dataclasses.replace(study, samples=128, alpha=0.1), dataclasses.replace(study, sigmas=(0.03,))):
        records = run(one, tmp_path / "out")
    found = study.results(read_source(tmp_path / "out").records)
    table = found.tables[0]
    lines = sorted((line["sigma"], line["copies"], line["images"]) for line in table.records())
    assert lines == [(0.02, 96, 1), (0.02, 128, 1), (0.03, 96, 1)]
    # The least confidence of any row; of the best of three outputs of three settings 1 - 3 (0.001 + 0.1 + 0.001).
    assert "90 % at least" in table.caption
    assert "69.4 % an image" in found.sentences[0]
    with pytest.raises(ValueError, match="alpha"):
        read_record(records[0].as_line() | {"alpha": 1.5}, {RestorationRecord.view: RestorationRecord})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--radius", 1), "more samples, a larger sigma or a smaller radius"),
        (("--radius", 0), "at least 0.00001"),
        (("--sigma", 0.7), "leaves nothing"),
        (("--region", "40,0,20,5"), "leaves the output of coffee, 48 x 48"),
        (("--region", "1,2,3"), "X,Y,W,H"),
        (("--memory", "1M"), "allow more memory"),
        (("--samples", 95), "96"),
    ],
)
def test_the_command_says_in_a_line_what_cannot_be(asked, told, tmp_path):
    write_png(tmp_path / "coffee.png", sample_image("coffee")[:, 100:112, 200:212])
    done = call(tmp_path / "coffee.png", "--model", "bicubic#x4", *asked, "--out", tmp_path / "out")
    assert done.exit_code
    assert told in " ".join(done.output.split()), done.output
