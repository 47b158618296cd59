"""Published checkpoints and the figures that their authors, or others with them, arrived at."""

import pytest
import torch
from odd import FULL

from resolute.images import from_uint8, read_image, to_uint8
from resolute.measure import psnr_y, ssim_y
from resolute.models import load
from resolute.resize import downscale, mod_crop

pytestmark = pytest.mark.data


def fidelity(model, pairs):
    """Return mean PSNR and SSIM on Y, the border of ``scale`` pixels shaved."""
    scores = []
    with torch.no_grad():
        for low, high in pairs:
            output = model(low[None])
            truth = high[None, :, : output.shape[-2], : output.shape[-1]]
            scores.append([measure(output, truth, border=model.scale).item() for measure in (psnr_y, ssim_y)])
    return torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()


def set5(folder):
    for file in sorted((folder / "sr_test" / "set5" / "LRbicx4").glob("*.png")):
        yield read_image(file), read_image(folder / "sr_test" / "set5" / "HR" / file.name.replace("x4", ""))


def shrunken(files, scale):
    for file in files:
        high = mod_crop(to_uint8(read_image(file)), scale)
        yield from_uint8(downscale(high, scale)), from_uint8(high)


def test_carn_m_restores_set5_as_published(data_dir):
    model = load(data_dir / "sr_weights" / "CARN-M_x234.pth", scale=4)
    assert (model.arguments()["channels"], model.arguments()["group"], model.arguments()["peak"]) == (64, 4, 1.0)
    psnr, ssim = fidelity(model, set5(data_dir))
    assert psnr == pytest.approx(31.885, abs=0.02)
    assert ssim == pytest.approx(0.8910, abs=0.0005)


@pytest.mark.parametrize(("scale", "bicubic"), [(2, 33.66), (3, 30.39)])
def test_carn_m_leaves_bicubic_far_behind_at_its_other_scales(data_dir, scale, bicubic):
    """An upsampler of another scale, or cut out at the wrong place, would fall far below bicubic."""
    model = load(data_dir / "sr_weights" / "CARN-M_x234.pth", scale=scale)
    files = sorted((data_dir / "sr_test" / "set5" / "HR").glob("*.png"))
    psnr, _ = fidelity(model, shrunken(files, scale))
    assert psnr > bicubic + 3.5


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="Set5 says it of the same code; both with RESOLUTE_HOSTILE=full")
def test_carn_m_restores_bsd100_as_published(data_dir):
    model = load(data_dir / "sr_weights" / "CARN-M_x234.pth", scale=4)
    files = sorted((data_dir / "sr_test" / "b100" / "HR_jpg").glob("*.jpg"))
    assert len(files) == 100
    psnr, ssim = fidelity(model, shrunken(files, 4))
    assert psnr == pytest.approx(27.453, abs=0.02)
    assert ssim == pytest.approx(0.7315, abs=0.0005)


def test_the_small_srgan_of_leftthomas_restores_set5_as_measured_elsewhere(data_dir):
    model = load(data_dir / "sr_weights" / "SRGAN_leftthomas_x4_pt04.pth", scale=4)
    assert (model.arguments()["blocks"], model.arguments()["closing"]) == (5, "prelu")
    assert sum(parameter.numel() for parameter in model.parameters()) == 734_092
    assert fidelity(model, set5(data_dir))[0] == pytest.approx(30.65, abs=0.02)
