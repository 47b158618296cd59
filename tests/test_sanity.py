"""Attacks on published weights, held against figures measured once with other code (official CARN-M, Set5, x4).

SR-PSNR against the model's own clean output: RGB, clamped, not rounded, no border shaved; the mean over bird, butterfly
and head. Long attacks are tried on the middle of the butterfly, and on all with RESOLUTE_HOSTILE=full: the figures
of the middle are of the code that gives the other code's figures for the whole.
"""

import pytest
import torch
from odd import FULL

from resolute.attacks import APGD, FDA, FGSM, IFGSM, PGD, RandomNoise
from resolute.images import read_image
from resolute.measure.fidelity import psnr_rgb
from resolute.models import load
from resolute.runtime import has_bfloat16

FOUR = 4 / 255
# The search in bfloat16, which takes half the time where the processor has it and many times as long elsewhere.
FAST = "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32"


@pytest.fixture(scope="module")
def carn_m(data_dir):
    return load(data_dir / "sr_weights" / "CARN-M_x234.pth", scale=4)


@pytest.fixture(scope="module")
def set5(data_dir):
    folder = data_dir / "sr_test" / "set5" / "LRbicx4"
    return [read_image(folder / f"{name}x4.png").unsqueeze(0) for name in ("bird", "butterfly", "head")]


def sr_psnr(attack, model, images):
    with torch.no_grad():
        found = [(model(x), model(attack(model, x).unrounded)) for x in images]
    return float(torch.cat([psnr_rgb(clean, attacked) for clean, attacked in found]).mean())


@pytest.mark.data
@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (RandomNoise(epsilon=FOUR, draws=1, shape="uniform"), 36.75),
        (RandomNoise(epsilon=FOUR, draws=1, shape="signs"), 32.27),
        (FGSM(epsilon=FOUR), 30.12),
    ],
    ids=("noise", "signs", "fgsm"),
)
def test_short_attacks_do_what_they_did_elsewhere(carn_m, set5, attack, expected):
    assert sr_psnr(attack, carn_m, set5) == pytest.approx(expected, abs=0.3)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "expected", "middle"),
    [
        (FDA(epsilon=FOUR, start="zero", precision=FAST), 28.08, 25.96),
        (IFGSM(epsilon=FOUR, precision=FAST), 25.63, 23.74),
        (PGD(epsilon=FOUR, precision=FAST), 24.09, 22.66),
    ],
    ids=("fda", "ifgsm", "pgd"),
)
def test_long_attacks_do_what_they_did_elsewhere(carn_m, set5, attack, expected, middle):
    if FULL:
        assert sr_psnr(attack, carn_m, set5) == pytest.approx(expected, abs=0.3)
    else:
        assert sr_psnr(attack, carn_m, [set5[1][..., 16:40, 16:40]]) == pytest.approx(middle, abs=0.3)


@pytest.mark.data
@pytest.mark.slow
def test_apgd_is_no_weaker_than_pgd_of_equal_steps(carn_m, set5):
    crops = [x[..., 16:40, 16:40] for x in set5]
    attacks = APGD(epsilon=FOUR, steps=20, precision=FAST), PGD(epsilon=FOUR, steps=20, precision=FAST)
    apgd, pgd = (sr_psnr(attack, carn_m, crops) for attack in attacks)
    assert apgd < pgd + 0.1
