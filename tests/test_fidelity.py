import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resolute.images import from_uint8, read_image, to_uint8
from resolute.measure.fidelity import luma, psnr_rgb, psnr_y, ssim_y
from resolute.resize import upscale

GOLDEN = {
    "baby": (33.948246, 0.896239),
    "bird": (35.904838, 0.951746),
    "butterfly": (29.359312, 0.934269),
    "head": (33.010323, 0.799064),
    "woman": (30.945093, 0.919886),
}


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape or (2, 3, 20, 17), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_luma(image):
    """BT.601 of the 8-bit levels, pixel by pixel."""
    levels = np.floor(np.clip(image.double().numpy(), 0, 1) * 255 + 0.5)
    height, width = levels.shape[1:]
    y = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            red, green, blue = levels[:, i, j] / 255
            y[i, j] = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    return y


def slow_psnr(a, b, border):
    total, count = 0.0, 0
    for i in range(border, a.shape[0] - border):
        for j in range(border, a.shape[1] - border):
            total += (a[i, j] - b[i, j]) ** 2
            count += 1
    return 10 * math.log10(255**2 / (total / count))


def slow_ssim(a, b):
    """SSIM from its definition: Gaussian window of 11, width 1.5, at every place where it fits."""
    ramp = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(ramp, ramp) / np.outer(ramp, ramp).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            vxy = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


@pytest.mark.data
@pytest.mark.parametrize("name", GOLDEN)
def test_published_outputs_measure_as_published(data_dir, name):
    truth, output = (read_image(data_dir / "golden" / f"{name}_{kind}_x4.png").unsqueeze(0) for kind in ("HR", "RCAN"))
    psnr, ssim = GOLDEN[name]
    assert psnr_y(output, truth, border=4).item() == pytest.approx(psnr, abs=5.1e-7)
    assert ssim_y(output, truth, border=4).item() == pytest.approx(ssim, abs=5.1e-7)


@pytest.mark.data
def test_bicubic_on_set5_measures_as_published(data_dir):
    values = []
    for name in GOLDEN:
        low, truth = (read_image(data_dir / "golden" / f"{name}_{kind}_x4.png") for kind in ("LR", "HR"))
        enlarged = from_uint8(upscale(to_uint8(low), 4)).unsqueeze(0)
        values.append(psnr_y(enlarged, truth.unsqueeze(0), border=4).item())
    assert np.mean(values) == pytest.approx(28.43, abs=0.02)


def test_luma_is_bt601_of_8_bit_levels():
    x = images(2, 3, 4, 5) * 1.4 - 0.2
    expected = torch.from_numpy(np.stack([slow_luma(image) for image in x]))
    torch.testing.assert_close(luma(x), expected, rtol=0, atol=1e-9)
    ends = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).view(5, 3, 1, 1)
    assert luma(ends).flatten().tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])


@pytest.mark.parametrize("border", [0, 1, 4])
def test_psnr_y_is_its_definition(border):
    a, b = images(), images(seed=1)
    expected = [slow_psnr(slow_luma(x), slow_luma(y), border) for x, y in zip(a, b, strict=True)]
    assert psnr_y(a, b, border).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("border", [0, 3])
def test_psnr_rgb_is_its_definition(border):
    a, b = images(dtype=torch.float64), images(seed=1, dtype=torch.float64)
    inner = slice(border, 20 - border), slice(border, 17 - border)
    expected = [-10 * math.log10(np.mean((x - y).numpy()[:, *inner] ** 2)) for x, y in zip(a, b, strict=True)]
    assert psnr_rgb(a, b, border).tolist() == pytest.approx(expected, rel=1e-12)


def test_ssim_y_is_its_definition():
    a = images(2, 3, 16, 14)
    b = (a + 0.2 * images(2, 3, 16, 14, seed=1)).clamp(0, 1)
    expected = [slow_ssim(slow_luma(x)[1:-1, 1:-1], slow_luma(y)[1:-1, 1:-1]) for x, y in zip(a, b, strict=True)]
    assert ssim_y(a, b, border=1).tolist() == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 255))
def test_a_shift_of_k_levels_reads_as_it_should(k):
    a = torch.zeros(1, 3, 4, 4)
    expected = 20 * math.log10(255 / k)
    assert psnr_rgb(a, a + k / 255).item() == pytest.approx(expected, abs=1e-5)
    assert psnr_y(a, a + k / 255, border=0).item() == pytest.approx(20 * math.log10(255**2 / (219 * k)), abs=1e-5)


def test_equal_images_are_infinitely_near():
    a = images()
    assert psnr_y(a, a, border=4).tolist() == [math.inf, math.inf]
    assert psnr_rgb(a, a).tolist() == [math.inf, math.inf]
    assert ssim_y(a, a, border=2).tolist() == [1.0, 1.0]
    mixed = a.clone()
    mixed[1] = 0
    assert psnr_rgb(a, mixed).isinf().tolist() == [True, False]


def test_y_rounds_to_8_bits_and_rgb_does_not():
    a = torch.full((1, 3, 12, 12), 100 / 255)
    b = a + 0.4 / 255
    assert psnr_y(a, b, border=0).item() == math.inf
    assert psnr_rgb(a, b).item() == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-3)


def test_values_beyond_the_range_count_as_clamped():
    a, b = images(), images(seed=1)
    b[0] = 1 + b[0]
    assert psnr_rgb(a, b)[0] == psnr_rgb(a, torch.ones_like(b))[0]
    assert psnr_y(a, b, border=2)[0] == psnr_y(a, torch.ones_like(b), border=2)[0]
    assert ssim_y(a, b, border=2)[0] == ssim_y(a, torch.ones_like(b), border=2)[0]


@pytest.mark.parametrize("measure", [psnr_y, psnr_rgb, ssim_y])
def test_measures_are_symmetric_and_per_image(measure):
    a, b = images(3, 3, 20, 17), images(3, 3, 20, 17, seed=1)
    torch.testing.assert_close(measure(a, b, 2), measure(b, a, 2))
    torch.testing.assert_close(measure(a, b, 2)[1:2], measure(a[1:2], b[1:2], 2))
    assert measure(a, b, 2).shape == (3,)
    assert measure(a, b, 2).dtype == torch.float64


@pytest.mark.parametrize("measure", [psnr_y, psnr_rgb, ssim_y])
def test_only_what_lies_inside_the_border_counts(measure):
    a, b = images(), images(seed=1)
    framed = b.clone()
    framed[..., :3, :] = framed[..., -3:, :] = framed[..., :, :3] = framed[..., :, -3:] = 0
    assert torch.equal(measure(a, framed, 3), measure(a, b, 3))
    framed[..., 3, 3] = 1 - framed[..., 3, 3]
    assert (measure(a, framed, 3) != measure(a, b, 3)).all()


@pytest.mark.parametrize("measure", [psnr_y, psnr_rgb, ssim_y])
@pytest.mark.usefixtures("unchecked_shapes")
def test_images_that_cannot_be_compared_are_refused(measure):
    a = images()
    with pytest.raises(ValueError, match=r"\(2, 3, 20, 17\) and \(2, 3, 20, 16\)"):
        measure(a, a[..., :16], 0)
    with pytest.raises(ValueError, match="size"):
        measure(a, a[:1], 0)
    with pytest.raises(ValueError, match=r"9 pixels.* 17x20"):
        measure(a, a, 9)
    with pytest.raises(ValueError, match="shaving -1"):
        measure(a, a, -1)


def test_ssim_needs_room_for_its_window():
    a = images(1, 3, 19, 30)
    assert ssim_y(a, a, border=4).item() == 1
    with pytest.raises(ValueError, match=r"11 pixels.* 20x9"):
        ssim_y(a, a, border=5)


def test_nearer_images_measure_higher():
    a, noise = images() * 0.5 + 0.25, images(seed=1) - 0.5
    for measure in (psnr_y, psnr_rgb, ssim_y):
        values = torch.stack([measure(a, a + share * noise, 1) for share in (0.4, 0.2, 0.1, 0.05)])
        assert (values.diff(dim=0) > 0).all()
