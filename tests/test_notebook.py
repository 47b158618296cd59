"""What a notebook shows of models, attacks and certificates."""

import base64
import dataclasses
import io
import re
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from small import images, network

import resolute
from resolute.notebook import LONGEST, MOST, magnified, picture


@pytest.fixture
def found():
    return resolute.PGD(epsilon=4 / 255, steps=2)(network(), images())


@pytest.fixture
def certificate():
    metric = resolute.as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="<b>mean</b>", low=0.0, high=1.0)
    return resolute.certify(metric, torch.full((3, 16, 16), 0.5), epsilon=0.05, n=200)


@pytest.fixture
def drawn(monkeypatch):
    """Put a matplotlib in place that notes what is drawn."""
    calls = []

    class Axes:
        def __getattr__(self, name):
            return lambda *arguments, **_: calls.append((name, *arguments))

    def subplots(rows=1, columns=1, **_):
        return None, Axes() if rows * columns == 1 else [Axes() for _ in range(columns)]

    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.subplots = subplots
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    return calls


def pictures(html):
    uris = re.findall(r'src="data:image/png;base64,([^"]+)" alt="[^"]+"', html)
    assert len(uris) == html.count("<img")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]


def test_every_result_is_one_line_without_tensors(found, certificate):
    metric = resolute.load_scorer("quality-s")
    for thing in (found, certificate, network(), resolute.load("edsr-xs"), metric, resolute.Tiled(network(), 64)):
        text = repr(thing)
        assert "\n" not in text
        assert "tensor" not in text
        assert len(text) < 200
    assert "edsr-xs" in repr(resolute.load("edsr-xs"))
    assert "quality-s" in repr(metric)
    assert "4/255" in repr(found)


def test_models_show_their_cards_and_escape_names():
    shown = resolute.load("edsr-xs")._repr_html_()
    assert resolute.load("edsr-xs").card.sha256 in shown
    metric = resolute.as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="<b>mean</b>", low=0.0, high=1.0)
    assert "&lt;b&gt;mean" in metric._repr_html_()
    assert "<b>mean" not in metric._repr_html_()
    assert "parameters" in network()._repr_html_()


def test_an_attack_shows_clean_attacked_and_difference(found):
    html = found._repr_html_()
    clean, attacked, difference = pictures(html)[:3]
    assert np.array_equal(clean, np.asarray(images()[0].mul(255).round().byte().permute(1, 2, 0)))
    assert np.array_equal(attacked, np.asarray(found.images[0].mul(255).round().byte().permute(1, 2, 0)))
    assert abs(int(difference.min()) - 128) > 100
    assert html.count("<img") == 3 * len(found.images)


def test_a_large_batch_shows_its_first_images(found):
    many = dataclasses.replace(
        found,
        **{
            name: getattr(found, name)[:1].repeat_interleave(MOST + 2, dim=0)
            for name in ("images", "unrounded", "objective", "objective_unrounded", "clean")
        },
    )
    html = many._repr_html_()
    assert html.count("<img") == 3 * MOST
    assert "2 more" in html


def test_pictures_stay_small_and_captions_are_escaped():
    html = picture(torch.rand(3, 40, 3 * LONGEST), '"><script>')
    assert pictures(html)[0].shape[1] == LONGEST
    assert "<script>" not in html


def test_an_image_that_did_not_move_has_no_difference():
    grey, factor = magnified(torch.zeros(3, 4, 4))
    assert factor == 1
    assert torch.equal(grey, torch.full((3, 4, 4), 0.5))


def test_a_certificate_says_what_it_proves_and_escapes_names(certificate):
    html = certificate._repr_html_()
    assert "<b>" not in html
    assert f"{certificate.lower:.6g}" in html


def test_plots_draw_the_figures(drawn, found, certificate):
    certificate.plot([0.0, 0.05, 1.0])
    (_, radii, low, high) = next(call for call in drawn if call[0] == "fill_between")
    assert radii == [0.0, 0.05, 1.0]
    assert (low[1], high[1]) == (certificate.lower, certificate.upper)
    assert ("axhline", certificate.score) in drawn
    certificate.plot()
    found.plot()
    shown = [call[1] for call in drawn if call[0] == "imshow"]
    assert len(shown) == 3
    assert np.array_equal(shown[1], pictures(found._repr_html_())[1])


def test_ends_that_are_infinite_are_not_drawn(drawn, certificate):
    dataclasses.replace(certificate, low=-np.inf, high=np.inf).plot([0.0, 5.0])
    (_, _, low, high) = next(call for call in drawn if call[0] == "fill_between")
    assert np.isnan([low[1], high[1]]).all()


def test_without_matplotlib_the_remedy_is_named(found, certificate, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    for thing in (found, certificate):
        with pytest.raises(resolute.ConfigError, match="install matplotlib"):
            thing.plot()
