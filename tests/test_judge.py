import dataclasses

import numpy as np
import pytest
import torch
from small import network
from torch import nn

from resolute import APGD, PGD, Bicubic, psnr_rgb, psnr_y, sample_image
from resolute.errors import ImageError
from resolute.images import to_uint8, write_png
from resolute.models.wrapped import as_restorer
from resolute.resize import downscale
from resolute.training.judge import BROKEN, Damage, Judged, Photograph, further, judge, photographs, suite
from resolute.training.judging import Judging
from resolute.training.recipe import read_recipe


def photograph(name="coffee", side=64):
    high = to_uint8(sample_image(name)[:, 100 : 100 + side, 100 : 100 + side])
    return Photograph(f"{name}.png", downscale(high, 2), high)


def test_the_suite_is_what_it_says():
    attacks = suite(4 / 255)
    apgd, truth = attacks["APGD"], attacks["PGD on the truth"]
    assert isinstance(apgd, APGD)
    assert (apgd.steps, apgd.restarts) == (100, 3)
    assert isinstance(truth, PGD)
    assert (truth.steps, truth.restarts) == (50, 3)
    assert set(further(4 / 255, None)) == {"Square"}
    assert set(further(4 / 255, Bicubic(2))) == {"Square", "transfer from the undefended"}


def test_figures_are_of_the_attacked_file():
    model, image = network(), photograph(side=32)
    attacks = {name: dataclasses.replace(attack, steps=3, restarts=1) for name, attack in suite(4 / 255).items()}
    found, seen = judge(model, image, attacks)
    low, high = image.tensors(torch.device("cpu"))
    levels = seen.attacked * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert float((seen.attacked - low[0]).abs().max()) * 255 <= 4.001
    with torch.no_grad():
        clean, output = model(low), model(seen.attacked[None])
    assert torch.allclose(seen.output, output[0])
    assert found.clean == pytest.approx(float(psnr_y(clean, high, border=2)))
    worst = min(found.damage.values(), key=lambda damage: damage.truth)
    assert worst.truth == pytest.approx(float(psnr_y(output, high, border=2)))
    assert worst.kept == pytest.approx(float(psnr_rgb(clean, output)))
    assert found.truth == worst.truth


def test_what_lowers_a_figure_most_is_the_figure():
    judged = Judged("a", 30.0, {"one": Damage(20.0, 25.0), "two": Damage(22.0, 21.0)})
    assert (judged.kept, judged.truth) == (20.0, 21.0)


def test_an_output_that_is_not_finite_is_the_worst_there_is():
    image = photograph(side=32)
    clean = image.tensors(torch.device("cpu"))[0]

    class Exploding(nn.Module):
        def forward(self, x):
            large = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            moved = x.shape == clean.shape and bool((x - clean).abs().amax() > 2 / 255)
            return large * (torch.inf if moved else 1)

    found, _ = judge(as_restorer(Exploding(), 2, name="exploding"), image, suite(4 / 255))
    assert found.truth == BROKEN
    assert found.kept == BROKEN
    assert found.clean > 10


def test_photographs_are_spread_and_cut(tmp_path):
    for index in range(5):
        write_png(tmp_path / f"{index}.png", torch.rand(3, 70, 500))
    found = photographs([tmp_path], 2, 3)
    assert [one.name for one in found] == ["0.png", "1.png", "3.png"]
    assert found[0].low.shape == (35, 192, 3)
    assert found[0].high.shape == (70, 384, 3)
    write_png(tmp_path / "0.png", torch.rand(3, 20, 500))
    with pytest.raises(ImageError, match="32 pixels"):
        photographs([tmp_path], 2, 3)
    other = tmp_path / "other"
    write_png(other / "1.png", torch.rand(3, 70, 70))
    names = [one.name for one in photographs([tmp_path / "1.png", other / "1.png"], 2, 5)]
    assert len(set(names)) == 2


def test_the_middle_of_both_belongs_together():
    low = np.arange(9 * 11 * 3, dtype=np.uint8).reshape(9, 11, 3)
    cut = Photograph("a", low, low.repeat(2, 0).repeat(2, 1)).cut(4)
    assert cut.low.shape == (4, 4, 3)
    assert np.array_equal(cut.high, cut.low.repeat(2, 0).repeat(2, 1))


def test_the_mixture_has_the_clean_psnr_of_what_it_stands_beside(tmp_path, monkeypatch):
    monkeypatch.setattr("resolute.training.judging.suite", lambda epsilon, *_: {"APGD": APGD(epsilon=epsilon, steps=1)})
    from resolute import load

    before, image = load("edsr-xs"), Photograph("c", *_pair())
    after = load("edsr-xs-entropy")
    judging = Judging(tmp_path, read_recipe("harden"), before, after, "edsr-xs")
    made = judging.result(tmp_path / "w.pth", "", [image], None)
    assert made.mixture.clean.mean == pytest.approx(made.after.clean.mean, abs=0.01)
    assert 0 < made.theta < 1
    same = Judging(tmp_path / "b", read_recipe("harden"), before, before, "edsr-xs")
    assert same.result(tmp_path / "w.pth", "", [image], None).theta == pytest.approx(1, abs=0.05)


def _pair():
    high = to_uint8(sample_image("coffee")[:, :192, :192])
    return downscale(high, 4), high
