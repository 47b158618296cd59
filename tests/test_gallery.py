"""The gallery: page, pictures and figures are of one making, and light enough to be sent."""

import json
import re

import pytest
from PIL import Image
from small import script_of
from sources import ROOT

from resolute.images import from_uint8
from resolute.measure import psnr_y

DOCS = ROOT / "docs"
LARGEST = 1_500_000


@pytest.fixture(scope="module")
def gallery():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        return script_of("make_gallery")


@pytest.fixture(scope="module")
def figures():
    return json.loads((DOCS / "images" / "gallery.json").read_text(encoding="utf-8"))


def test_the_page_says_what_the_figures_say(gallery, figures):
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == gallery.page_of(figures)


def test_every_picture_is_there_and_is_shown(gallery, figures):
    assert list(figures) == list(gallery.SHOTS)
    shown = re.findall(r"\]\(images/(gallery-[\w-]+\.webp)\)", (DOCS / "gallery.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in (DOCS / "images").glob("gallery-*"))
    for name in shown:
        with Image.open(DOCS / "images" / name) as picture:
            assert picture.format == "WEBP"
            assert picture.width >= 2 * gallery.SIDE


def test_the_page_weighs_little():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    files = {DOCS / name for name in re.findall(r"\]\((images/[\w-]+\.webp)\)", text)}
    assert len(files) > 5
    assert len(text.encode()) + sum(path.stat().st_size for path in files) < LARGEST


def test_every_caption_has_a_seed_and_a_way_on(gallery):
    for shot in gallery.SHOTS.values():
        assert "seed 0" in " ".join(shot.words.split()), shot.title
        assert re.search(r"\]\((howto/)?[\w-]+\.md", shot.words), shot.title
    assert gallery.SEED == 0


def test_what_an_attack_leaves_is_measured_from_the_picture_that_is_attacked(gallery):
    image = gallery.photograph("astronaut", 20, 130, 64)
    figures, pictures = gallery.attacked(gallery.load("edsr-xs"), image, 4)
    assert figures["attacked"] < figures["clean"]
    low, clean, attacked = (pixels for pixels, _ in pictures)
    assert 0 < abs(low.astype(int) - image.low.astype(int)).max() <= 4
    truth = from_uint8(image.high)[None]
    for output, name in ((clean, "clean"), (attacked, "attacked")):
        assert float(psnr_y(from_uint8(output)[None], truth, border=4)) == pytest.approx(figures[name], abs=0.05)
