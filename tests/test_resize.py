import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resolute.folders import SUFFIXES, find_images
from resolute.images import read_image, to_uint8
from resolute.resize import downscale, mod_crop, upscale, upscale_tensor

scales = st.sampled_from((2, 3, 4))
sides = st.integers(1, 20)


def slow_downscale(image, scale, border):
    """Shrink one output pixel at a time, straight from the definition of ``imresize`` with 1-based indices."""

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    def beyond(tap, length):
        if border == "replicate":
            return min(max(tap, 1), length)
        while not 1 <= tap <= length:
            tap = 1 - tap if tap < 1 else 2 * length + 1 - tap
        return tap

    def shrink_line(line):
        shrunk = []
        for o in range(1, math.ceil(len(line) / scale) + 1):
            u = o * scale + 0.5 * (1 - scale)
            left = math.floor(u - 2 * scale)
            taps = [left + p for p in range(4 * scale + 2)]
            weights = [cubic((u - tap) / scale) / scale for tap in taps]
            values = [float(line[beyond(tap, len(line)) - 1]) for tap in taps]
            value = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
            shrunk.append(min(max(math.floor(value + 0.5), 0), 255))
        return shrunk

    def shrink_rows(channel):
        return np.array([shrink_line(column) for column in channel.T]).T

    return np.stack([shrink_rows(shrink_rows(c).T).T for c in image.transpose(2, 0, 1)], axis=-1).astype(np.uint8)


def noise(*shape, seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


@pytest.mark.parametrize("border", ["mirror", "replicate"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(24, 36), (23, 37), (5, 48), (1, 1)])
def test_downscale_follows_the_definition(scale, size, border):
    image = noise(*size, 3, seed=scale)
    assert np.array_equal(downscale(image, scale, border), slow_downscale(image, scale, border))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_downscale_of_hard_edges_clips_between_the_passes(scale):
    image = np.where(noise(24, 24, 3, seed=7) < 128, 0, 255).astype(np.uint8)
    assert np.array_equal(downscale(image, scale), slow_downscale(image, scale, "mirror"))


@given(scales, sides, sides, st.integers(0, 255))
def test_a_constant_image_stays_constant(scale, height, width, level):
    image = np.full((height, width, 3), level, dtype=np.uint8)
    assert (downscale(image, scale) == level).all()
    assert (upscale(image, scale) == level).all()
    x = torch.full((1, 3, height, width), level / 255)
    torch.testing.assert_close(upscale_tensor(x, scale), torch.full((1, 3, height * scale, width * scale), level / 255))


@given(scales, sides, sides)
def test_sizes(scale, height, width):
    image = noise(height, width, 3)
    assert downscale(image, scale).shape == (math.ceil(height / scale), math.ceil(width / scale), 3)
    assert upscale(image, scale).shape == (height * scale, width * scale, 3)
    assert upscale_tensor(torch.zeros(2, 3, height, width), scale).shape == (2, 3, height * scale, width * scale)


@given(scales, st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=30)
def test_upscale_tensor_is_linear(scale, a, b):
    x, y = torch.rand(2, 1, 3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    separately = a * upscale_tensor(x, scale) + b * upscale_tensor(y, scale)
    torch.testing.assert_close(upscale_tensor(a * x + b * y, scale), separately)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscale_rounds_what_upscale_tensor_leaves_unrounded(scale):
    # A single column passes the second pass unchanged, so that only one rounding remains.
    column = noise(40, 1, 3, seed=scale)
    x = torch.from_numpy(column).permute(2, 0, 1)[None].double()
    unrounded = upscale_tensor(x, scale)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(upscale(column, scale), np.floor(unrounded + 0.5).clip(0, 255))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscale_stays_within_its_two_roundings_of_upscale_tensor(scale):
    # Levels far from 0 and 255, so that nothing is clipped; the weights of a pass sum to at most 1.25 in magnitude.
    image = noise(17, 12, 3, seed=scale, low=96, high=160)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    unrounded = upscale_tensor(x, scale)[0].permute(1, 2, 0).numpy()
    assert np.abs(upscale(image, scale) - unrounded).max() <= 0.5 + 0.5 * 1.25


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscale_tensor_keeps_a_ramp_away_from_the_border(scale):
    x = torch.arange(12, dtype=torch.float64).repeat(12, 1)[None, None]
    inside = upscale_tensor(x, scale)[0, 0, 0, 2 * scale : -2 * scale]
    torch.testing.assert_close(inside.diff(), torch.full_like(inside.diff(), 1 / scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscale_tensor_has_the_right_gradient(scale):
    x = torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: upscale_tensor(x, scale), x)


def test_upscale_tensor_does_not_mix_images_or_channels():
    x = torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    together = upscale_tensor(x, 4)
    torch.testing.assert_close(together[1:2], upscale_tensor(x[1:2], 4))
    torch.testing.assert_close(together[:, 2:], upscale_tensor(x[:, 2:], 4))


@given(scales, st.integers(4, 20), st.integers(4, 20))
def test_mod_crop_cuts_bottom_and_right(scale, height, width):
    image = noise(height, width, 3)
    cropped = mod_crop(image, scale)
    assert [side % scale for side in cropped.shape[:2]] == [0, 0]
    assert height - cropped.shape[0] < scale
    assert width - cropped.shape[1] < scale
    assert np.array_equal(cropped, image[: cropped.shape[0], : cropped.shape[1]])


@pytest.mark.parametrize("size", [(3, 9), (9, 3)])
def test_mod_crop_refuses_an_image_smaller_than_the_scale(size):
    with pytest.raises(ValueError, match="scale 4"):
        mod_crop(noise(*size, 3), 4)


@pytest.mark.data
@pytest.mark.parametrize(
    ("high", "low", "count", "border"),
    [
        ("golden/{}_HR_x4", "golden/{}_LR_x4", 5, "replicate"),
        ("sr_test/set5/HR/{}", "sr_test/set5/LRbicx4/{}x4", 5, "mirror"),
        ("sr_test/set14/HR/{}", "sr_test/set14/LRbicx4/{}x4", 14, "mirror"),
        ("sr_test/b100/HR_jpg/{}", "sr_test/b100/LRbicx4/{}x4", 100, "mirror"),
    ],
)
def test_downscale_reproduces_published_files_byte_for_byte(data_dir, high, low, count, border):
    before, after = (data_dir / high).name.split("{}")
    stems = [path.stem for path in find_images([(data_dir / high).parent])]
    names = [s.removeprefix(before).removesuffix(after) for s in stems if s.startswith(before) and s.endswith(after)]
    assert len(names) == count

    def pixels(pattern, name):
        stem = data_dir / pattern.format(name)
        [path] = [p for p in (stem.with_name(stem.name + suffix) for suffix in SUFFIXES) if p.exists()]
        return to_uint8(read_image(path))

    def shrunk(name):
        return downscale(mod_crop(pixels(high, name), 4), 4, border)

    assert [name for name in names if not np.array_equal(shrunk(name), pixels(low, name))] == []
