import io

import numpy as np
import pytest
import torch
from PIL import Image

from resolute import ConfigError
from resolute.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from resolute.images import from_uint8, sample_image, to_uint8
from resolute.measure.fidelity import psnr_rgb
from resolute.resize import downscale


@pytest.fixture(scope="module")
def pair():
    high = to_uint8(sample_image("motorcycle")[:, 100:292, 200:392])
    return from_uint8(downscale(high, 4)), from_uint8(high)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_does_more_damage(pair, kind):
    low, high = pair
    found = [corrupted(low, kind, severity, truth=high, scale=4) for severity in SEVERITIES]
    assert all(torch.equal(one, from_uint8(to_uint8(one))) and one.shape == low.shape for one in found)
    kept = [float(psnr_rgb(low[None], one[None])) for one in found]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1] + 4
    assert kept[-1] > 15


def test_files_are_what_pillow_writes(pair):
    low = pair[0]
    for kind, format in (("jpeg", "JPEG"), ("webp", "WEBP")):
        file = io.BytesIO()
        Image.fromarray(to_uint8(low)).save(file, format, quality=70)
        assert np.array_equal(to_uint8(corrupted(low, kind, 3)), np.asarray(Image.open(file).convert("RGB")))


def test_noise_has_its_deviation_and_its_seed():
    grey = torch.full((3, 64, 64), 128 / 255)
    for severity, level in zip(SEVERITIES, CORRUPTIONS["noise"].levels, strict=True):
        change = (corrupted(grey, "noise", severity) - grey) * 255
        # Rounding adds 1/12 to the variance.
        assert float(change.std()) == pytest.approx((level**2 + 1 / 12) ** 0.5, rel=0.03)
    assert torch.equal(corrupted(grey, "noise", 2, seed=1), corrupted(grey, "noise", 2, seed=1))
    assert not torch.equal(corrupted(grey, "noise", 2, seed=1), corrupted(grey, "noise", 2, seed=2))


def test_blur_spreads_a_point_as_a_gaussian_does():
    point = torch.zeros(3, 33, 33)
    point[:, 16, 16] = 1
    spread = corrupted(point, "blur", 4)[0] * 255
    x = torch.arange(33) - 16.0
    kernel = torch.exp(-(x**2) / (2 * 1.2**2))
    expected = 255 * torch.outer(kernel, kernel) / kernel.sum() ** 2
    assert (spread - expected).abs().max() <= 0.6


def test_chroma_leaves_luma_and_grey_alone(pair):
    low = pair[0]
    grey = low.mean(0, keepdim=True).expand(3, -1, -1)
    grey = from_uint8(to_uint8(grey))
    assert (corrupted(grey, "chroma", 5) - grey).abs().max() <= 1 / 255 + 1e-6
    before, after = (
        np.asarray(Image.fromarray(to_uint8(one)).convert("L"), int) for one in (low, corrupted(low, "chroma", 3))
    )
    assert np.abs(before - after).mean() < 1.5


def test_gamma_loses_dark_levels():
    ramp = from_uint8(np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2))
    stored = to_uint8(corrupted(ramp, "gamma", 3))[:, 0, 0]
    assert len(set(stored.tolist())) == len({round((level / 255) ** 2.2 * 255) for level in range(256)}) < 190
    assert np.abs(stored[200:].astype(int) - np.arange(200, 256)).max() <= 1


def test_another_shrinking_is_of_the_truth(pair):
    low, high = pair
    boxes = high.unflatten(1, (48, 4)).unflatten(3, (48, 4)).mean((2, 4))
    assert (corrupted(low, "kernel", 3, truth=high, scale=4) - boxes).abs().max() <= 1.01 / 255


@pytest.mark.parametrize(("kind", "severity"), [("jpg", 1), ("jpeg", 0), ("jpeg", 6), ("kernel", 1)])
def test_what_does_not_exist_is_said(kind, severity):
    with pytest.raises(ConfigError):
        corrupted(torch.zeros(3, 8, 8), kind, severity)


def test_an_image_of_one_pixel_stays_one():
    dot = torch.full((3, 1, 1), 0.5)
    for kind, corruption in CORRUPTIONS.items():
        if not corruption.of_truth:
            assert corrupted(dot, kind, 5).shape == (3, 1, 1)
