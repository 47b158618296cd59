import csv

import pytest
import torch
from odd import FULL
from scipy.special import gamma
from scipy.stats import spearmanr
from torch.nn import functional as F

from resolute.errors import CheckpointError, ImageError
from resolute.images import read_image, sample_image
from resolute.models import load_scorer
from resolute.models.brisque import BRISQUE
from resolute.models.naturalness import asymmetric_fit, luminance, normalize_locally, symmetric_fit
from resolute.models.niqe import NIQE


def generator():
    return torch.Generator().manual_seed(0)


def noisy(x, sigma):
    return (x + sigma * torch.randn(x.shape, generator=generator())).clamp(0, 1)


def random_niqe():
    roots = torch.randn(36, 36, generator=generator(), dtype=torch.float64)
    return NIQE(torch.rand(36, generator=generator()), roots @ roots.T / 36 + torch.eye(36))


def random_brisque():
    vectors = 2 * torch.rand(5, 36, generator=generator()) - 1
    ranges = torch.stack([torch.zeros(36), torch.ones(36)])
    return BRISQUE(vectors, torch.tensor([3.0, -1.0, 2.0, -2.0, 1.0]), ranges, rho=1.0, gamma=0.05)


def photograph(side=192):
    return sample_image("coffee")[None, :, 40 : 40 + side, 100 : 100 + side]


# The statistics.


@pytest.mark.parametrize(("shape", "deviation"), [(2.0, 1.0), (1.0, 3.0), (0.5, 0.2)])
def test_a_generalised_gaussian_is_recovered(shape, deviation):
    """The sample has density exp(-|x/s|^shape), from a gamma variable to the power of 1 / shape."""
    torch.manual_seed(0)
    radius = torch.distributions.Gamma(1 / shape, 1.0).sample((1, 600, 600)).double() ** (1 / shape)
    sample = radius * (2 * torch.randint(2, radius.shape) - 1)
    sample = sample * deviation / (gamma(3 / shape) / gamma(1 / shape)) ** 0.5
    found, variance = symmetric_fit(sample)
    assert found.item() == pytest.approx(shape, rel=0.02)
    assert variance.item() == pytest.approx(deviation**2, rel=0.02)
    found, left, right = asymmetric_fit(sample)
    assert found.item() == pytest.approx(shape, rel=0.02)
    assert left.item() == pytest.approx(right.item(), rel=0.02)
    _, left, right = asymmetric_fit(torch.where(sample < 0, 3 * sample, sample))
    assert (left / right).item() == pytest.approx(3, rel=0.02)


def test_shapes_lie_on_the_published_grid_and_yet_have_a_gradient():
    sample = torch.randn(2, 40, 40, generator=generator(), dtype=torch.float64).requires_grad_()
    shapes, _ = symmetric_fit(sample)
    torch.testing.assert_close((1000 * shapes).round() / 1000, shapes, rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(shapes.sum(), sample)
    assert (gradient != 0).any()
    assert gradient.isfinite().all()


def test_luminance_is_rounded_and_its_gradient_is_not():
    x = torch.rand(1, 3, 6, 5, generator=generator()).requires_grad_()
    grey = luminance(x)
    assert torch.equal(grey, grey.round())
    (gradient,) = torch.autograd.grad(grey.sum(), x)
    torch.testing.assert_close(gradient[0, :, 0, 0], 255 * torch.tensor([0.299, 0.587, 0.114]))


def test_a_flat_image_is_normalised_to_zero():
    flat = torch.full((1, 1, 20, 20), 100.0, dtype=torch.float64)
    assert normalize_locally(flat, "replicate").abs().max() < 1e-9


# The metrics, whatever their parameters.


@pytest.mark.parametrize("build", [random_niqe, random_brisque])
def test_an_image_scores_the_same_in_any_company(build):
    metric = build()
    x = torch.cat([photograph(), noisy(photograph(), 0.1), photograph().flip(3)])
    together = metric(x)
    assert together.dtype == x.dtype
    torch.testing.assert_close(metric(x.flip(0)).flip(0), together)
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), together)


@pytest.mark.parametrize("build", [random_niqe, random_brisque])
def test_the_gradient_points_upwards(build):
    metric, x = build(), photograph().double().requires_grad_()
    score = metric(x)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert gradient.isfinite().all()
    step = 2 / 255 * gradient.sign()
    with torch.no_grad():
        assert metric(x - step) < score < metric(x + step)


def test_the_distance_from_itself_is_next_to_nothing():
    metric, x = random_niqe(), photograph(288)
    features, valid = metric.features(x)
    assert valid.all()
    own = NIQE(features[0].mean(dim=0), metric.covariance)
    assert own(x).item() == pytest.approx(0, abs=1e-5)
    assert own.low == 0


def test_what_sticks_out_beyond_whole_blocks_does_not_count():
    metric, x = random_niqe(), photograph(192)
    assert torch.equal(metric(F.pad(x, (0, 95, 0, 40), mode="replicate")), metric(x))


def test_flat_blocks_are_left_out_and_flat_images_refused():
    metric, x = random_niqe(), photograph(288).clone()
    x[:, :, 96:] = 0.5
    x = x.requires_grad_()
    score = metric(x)
    assert score.isfinite()
    assert torch.autograd.grad(score.sum(), x)[0].isfinite().all()
    with pytest.raises(ImageError, match=r"two .*96 x 96 "):
        metric(torch.full((1, 3, 192, 192), 0.5))


def test_a_flat_image_has_a_finite_brisque():
    x = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    score = random_brisque()(x)
    assert score.isfinite()
    assert torch.autograd.grad(score.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("build", "side"), [(random_niqe, 191), (random_brisque, 15)])
def test_small_images_are_refused(build, side):
    with pytest.raises(ImageError, match=f"needs {side + 1} pixels a side"):
        build()(torch.rand(1, 3, side, 200))


# Parameters.


@pytest.mark.parametrize("name", ["niqe", "brisque"])
def test_parameters_that_are_not_there_are_named(tmp_path, monkeypatch, name):
    monkeypatch.delenv("RESOLUTE_DATA", raising=False)
    with pytest.raises(CheckpointError, match=f"iqa/weights/{name}.* is needed: name the folder"):
        load_scorer(name)
    with pytest.raises(CheckpointError, match=f"lacks iqa/weights/{name}"):
        load_scorer(name, data=tmp_path)
    monkeypatch.setenv("RESOLUTE_DATA", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"lacks iqa/weights/{name}"):
        load_scorer(name)


def test_parameters_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "niqe_pris_params.npz").write_bytes(b"404: Not Found")
    with pytest.raises(CheckpointError, match=r"parameters .*NIQE"):
        load_scorer("niqe", data=tmp_path)
    (tmp_path / "brisque").mkdir()
    with pytest.raises(CheckpointError, match=r"parameters .*BRISQUE"):
        load_scorer("brisque", data=tmp_path)
    for name in ("piq_svm_model.mat", "piq_scale.mat"):
        (tmp_path / "brisque" / name).write_bytes(b"404: Not Found")
    with pytest.raises(CheckpointError, match=r"parameters .*BRISQUE"):
        load_scorer("brisque", data=tmp_path)


# Golden numbers. NIQE: pyiqa 0.1.16, calculate_niqe, with these parameters. BRISQUE: piq 0.8.0, with these support
# vectors and ranges in place of its own. Images as they are, in float64. pyiqa's resizing is in other steps.

GOLDEN = {
    "coffee": (4.061253, 123.51468),
    "astronaut": (3.064019, 117.51766),
    "noise": (11.614900, 59.31481),
}


@pytest.mark.data
@pytest.mark.parametrize("name", GOLDEN)
def test_scores_agree_with_independent_implementations(data_dir, name):
    x = noisy(sample_image("coffee")[None], 0.1) if name == "noise" else sample_image(name)[None]
    x = ((255 * x).round() / 255).double()
    niqe, brisque = GOLDEN[name]
    assert load_scorer("niqe", data=data_dir)(x).item() == pytest.approx(niqe, abs=0.005)
    # Luminance goes to integers and shapes to a grid: where one lies on the edge, processors round it to either side.
    assert load_scorer("brisque", data=data_dir)(x).item() == pytest.approx(brisque, abs=0.05)


@pytest.mark.data
def test_cards_say_which_way_is_better(data_dir):
    """These BRISQUE parameters were fitted to scores that rise with quality, against the published sign."""
    niqe, brisque = (load_scorer(name, data=data_dir) for name in ("niqe", "brisque"))
    assert (niqe.card.lower_better, brisque.card.lower_better) == (True, False)
    assert (niqe.card.low, niqe.card.high, brisque.card.low) == (0, None, None)
    for metric in (niqe, brisque):
        card = metric.card
        assert (card.batch_invariant, card.deterministic, card.differentiable) == (True, True, True)
        assert len(card.sha256) == 64
        x = sample_image("astronaut")[None]
        scores = [metric(image).item() for image in (x, noisy(x, 0.1), noisy(x, 0.3))]
        assert scores == sorted(scores, reverse=not card.lower_better)


@pytest.mark.data
@pytest.mark.slow
def test_classical_metrics_follow_opinion_as_far_as_they_do(data_dir):
    """On a quarter of the 125 test images of CLIVE, where the code does what gives -0.406 and 0.342 on all of them."""
    folder = data_dir / "iqa" / "clive"
    with (folder / "mos.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"][:: 1 if FULL else 4]
    metrics = [load_scorer(name, data=data_dir) for name in ("niqe", "brisque")]
    with torch.no_grad():
        scores = [[metric(read_image(folder / row["path"])[None]).item() for row in rows] for metric in metrics]
    opinions = [float(row["mos"]) for row in rows]
    expected = (-0.406, 0.342) if FULL else (-0.333, 0.349)
    assert [spearmanr(one, opinions)[0] for one in scores] == pytest.approx(expected, abs=0.005)
