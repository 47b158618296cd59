import pytest
import torch

from resolute import PGD, Bicubic, ConfigError, DenoisedScorer, ScoreGain
from resolute.certificates import certify as certify_median
from resolute.defences.purify import AtSigma, Blur, Crop, Flip, ForDeepinv, Jpeg, Resize, purifier
from resolute.models import QualityNet
from resolute.models.denoisers import DnCNN

NAMES = ("jpeg-50", "resize-0.5", "crop-16", "blur-3", "flip", "flip-h", "flip-v")


def images():
    return torch.rand(2, 3, 24, 33, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_by_name_stays_in_range_and_repeats_itself(name):
    made = purifier(name)
    found = made(images())
    assert made.card.name == name
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found, purifier(name)(images()))
    torch.testing.assert_close(found[1:], made(images()[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_the_image(name):
    x = images().requires_grad_()
    purifier(name)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_jpeg_is_straight_through():
    x = images().requires_grad_()
    Jpeg(50)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    torch.testing.assert_close(Jpeg(50)(x).detach(), Jpeg(50)(x.detach()))
    assert (Jpeg(95)(images()) - images()).abs().mean() < (Jpeg(10)(images()) - images()).abs().mean()


def test_shapes_and_known_values():
    x = images()
    assert Resize(0.5)(x).shape == (2, 3, 12, 16)
    assert Crop(16)(x).shape == (2, 3, 16, 16)
    assert torch.equal(Crop(100)(x), x)
    assert any(not torch.equal(Crop(16)(x), Crop(16, seed=seed)(x)) for seed in range(1, 5))
    assert torch.equal(Flip()(x), x.flip(-1, -2))
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    assert Blur(3)(point).sum().item() == pytest.approx(3, abs=1e-5)
    assert Blur(3)(point)[0, 0, 4, 4].item() == pytest.approx(0.5226**2, abs=1e-3)


@pytest.mark.parametrize("name", ["", "nothing", "jpeg-x", "jpeg-0", "blur-4", "crop-0", "resize-2", "flip-q"])
def test_what_does_not_exist_is_refused(name):
    with pytest.raises(ConfigError):
        purifier(name)


# deepinv's convention, denoiser(x, sigma).


class Shrinkage(torch.nn.Module):
    """By deepinv's convention: told the noise, as a number or one an image, it draws pixels towards their mean."""

    def __init__(self):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x, sigma):
        sigma = torch.as_tensor(sigma).view(-1, 1, 1, 1)
        share = sigma**2 * self.strength / (sigma**2 * self.strength + x.var(dim=(2, 3), keepdim=True))
        return x + share * (x.mean(dim=(2, 3), keepdim=True) - x)


def test_a_denoiser_of_deepinvs_convention_stands_before_a_metric():
    denoiser, x = Shrinkage(), torch.rand(2, 3, 40, 36)
    purifier = AtSigma(denoiser, 0.2)
    torch.testing.assert_close(purifier(x), denoiser(x, 0.2))
    assert (purifier.card.name, purifier.card.architecture["sigma"]) == ("shrinkage-0.2", 0.2)
    before = purifier.card.sha256
    torch.nn.init.constant_(denoiser.strength, 3.0)
    assert AtSigma(denoiser, 0.2).card.sha256 != before
    metric = DenoisedScorer(QualityNet().eval(), purifier)
    image = x[0]
    certificate = certify_median(metric, image, n=50)
    assert certificate.lower <= certificate.upper
    found = PGD(epsilon=4 / 255, steps=2, objective=ScoreGain())(metric, x)
    assert (found.objective >= metric(x)).all()
    assert denoiser.strength.requires_grad


@pytest.mark.filterwarnings("ignore")
def test_a_denoiser_of_deepinv_itself():
    models = pytest.importorskip("deepinv.models", reason="deepinv is not installed")
    denoiser, x = (
        models.DRUNet(in_channels=3, out_channels=3, pretrained=None, nc=(4, 4, 4, 4), nb=1),
        torch.rand(2, 3, 16, 24),
    )
    torch.testing.assert_close(AtSigma(denoiser, 0.1)(x), denoiser(x, 0.1))


def test_ours_can_be_called_as_deepinv_calls_its_own():
    model = DnCNN(depth=3, channels=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.rand(2, 3, 9, 8)
    ours = ForDeepinv(model)
    for sigma in (0.1, torch.tensor([0.1, 0.2]), None):
        torch.testing.assert_close(ours(x, sigma), model(x))
    torch.testing.assert_close(AtSigma(ours, 0.1)(x), model(x))


def test_what_is_no_denoiser_is_refused():
    with pytest.raises(ConfigError, match="size"):
        ForDeepinv(Bicubic(2))
    with pytest.raises(ConfigError, match="standard deviation"):
        AtSigma(Shrinkage(), -0.1)
