import pytest
import torch

from resolute.errors import ImageError
from resolute.models import QualityNet
from resolute.models.pooling import ScoreHead, mean_and_std
from resolute.models.quality import ARCHITECTURE
from resolute.models.weights import weights_sha256


def network(seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return QualityNet(**{"widths": (6, 8, 8), "hidden": 4, **sizes}).eval()


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_built_in_size_is_small():
    assert sum(p.numel() for p in QualityNet().parameters()) == 297_233


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 35), (101, 40)])
def test_any_size_gives_one_score_an_image(size):
    metric, x = network(), images(3, 3, *size)
    scores = metric(x)
    assert scores.shape == (3,)
    assert (scores > 0).all()
    assert (scores < 100).all()


@pytest.mark.parametrize("size", [(31, 64), (64, 8)])
def test_small_images_are_refused(size):
    with pytest.raises(ImageError, match=f"needs 32 pixels a side; the image has {size[1]} x {size[0]}"):
        network()(images(1, 3, *size))


def test_every_pixel_counts_at_sizes_that_no_stride_divides():
    x = images(1, 3, 37, 35).requires_grad_()
    (gradient,) = torch.autograd.grad(network(widths=(32, 8, 8))(x).sum(), x)
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_no_image_leaves_the_range(scale):
    metric = network(low=0.1, high=0.7)
    with torch.no_grad():
        for parameter in metric.parameters():
            parameter.mul_(5)
    scores = metric((images(20, 3, 32, 32) - 0.5) * scale)
    low, high = torch.tensor([0.1, 0.7])
    assert (scores >= low).all()
    assert (scores <= high).all()


def test_an_image_scores_the_same_in_any_company():
    metric, x = network().double(), images(5, 3, 40, 44).double()
    together = metric(x)
    torch.testing.assert_close(metric(x.flip(0)).flip(0), together)
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), together)


def test_gradients_agree_with_finite_differences():
    metric, x = network().double(), images(2, 3, 32, 32).double().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(x).sum(), x)
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with torch.no_grad():
        change = metric(x + step) - metric(x - step)
    torch.testing.assert_close((2 * gradient * step).sum(dim=(1, 2, 3)), change, rtol=1e-5, atol=1e-10)


def test_a_flat_image_has_a_finite_gradient():
    x = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(network()(x).sum(), x)
    assert gradient.isfinite().all()


def test_every_weight_learns():
    metric = network().train()
    with torch.no_grad():
        for stage in metric.stages:
            for block in stage:
                block.project.weight.normal_(std=0.1)
    metric(images(4, 3, 40, 40)).sum().backward()
    assert all((p.grad != 0).any() for p in metric.parameters())


@pytest.mark.parametrize(
    "sizes", [{}, {"hidden": 0}, {"blocks": 0}, {"blocks": 3}, {"widths": (4,)}, {"low": -1.0, "high": 1.0}]
)
def test_a_state_dict_tells_its_network(sizes):
    metric = network(**sizes)
    state = metric.state_dict()
    assert ARCHITECTURE.detects(state)
    again = ARCHITECTURE.load(state)
    assert again.arguments() == metric.arguments()
    assert weights_sha256(again.state_dict()) == weights_sha256(state)
    arguments = {name: value for name, value in metric.arguments().items() if name != "class"}
    assert QualityNet(**arguments).state_dict().keys() == state.keys()


@pytest.mark.parametrize("sizes", [{"widths": ()}, {"widths": (4, 0)}, {"blocks": -1}, {"hidden": -1}])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ValueError, match="widths"):
        QualityNet(**sizes)


def test_scores_stay_float32_under_autocast():
    metric, x = network(), images(2, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = metric(x)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, metric(x), rtol=0, atol=2)


def test_pooling_is_the_mean_and_the_deviation():
    maps = images(2, 3, 5, 7).double()
    mean, std = mean_and_std(maps, floor=0.0)
    torch.testing.assert_close(mean, maps.mean(dim=(2, 3)))
    torch.testing.assert_close(std, maps.flatten(2).std(dim=2, correction=0))


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"low .*high"):
        ScoreHead(4, 2, low=1.0, high=1.0)
