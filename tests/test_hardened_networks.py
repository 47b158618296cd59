"""The table of hardened networks in docs/harden.md: it follows from the committed records."""

import json
import re
from pathlib import Path

import pytest
from small import script_of

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script():
    return script_of("make_hardening")


def test_the_table_is_that_of_the_records(script):
    page = (DOCS / "harden.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- table networks -->\n(.*?)\n<!-- end -->", page, re.DOTALL)[1]
    trained = json.loads(script.RECORDS.with_name("training.json").read_text())
    runs, before = script.read_runs(script.RECORDS), script.read_runs(script.LEADERBOARD / "records.parquet")
    assert shown.splitlines() == script.lines(runs, before, trained)
    damaged = json.loads(script.CORRUPTED.read_text())
    for name, lines in (
        ("adaptive", script.adaptive_lines(runs)),
        ("beyond", script.beyond_lines(runs, before, damaged)),
    ):
        shown = re.search(rf"<!-- table {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)[1]
        assert shown.splitlines() == lines
    for name, run in runs.items():
        id, form = name.split(":")
        assert id in script.NETWORKS
        assert form in script.FORMS
        images, of_suite = ({record.image for record in one.records} for one in (run, before[id]))
        assert (images < of_suite and len(images) == 5) if form == "adaptive" else images == of_suite


def test_gains_are_paired_by_image(script, monkeypatch):
    from types import SimpleNamespace

    before = {name: SimpleNamespace(sr_psnr=float(place)) for place, name in enumerate("abc")}
    after = {name: SimpleNamespace(sr_psnr=float(place) + 2) for place, name in enumerate("abc")}
    assert script.gain(before, after, "sr_psnr") == "+2.00 [2.00, 2.00]"


def test_noise_and_jpeg_are_milder_where_they_should_be(script):
    from resolute.images import sample_image

    x = sample_image("coffee")[None, :, :64, :64]
    assert script.to_8_bit(x).allclose(x, atol=0.5 / 255 + 1e-6)
    near, far = (float((script.through_jpeg(x, quality) - x).square().mean()) for quality in script.JPEG)
    assert 0 < near < far < 0.01


def test_templates_know_the_network_before(script):
    study = script.template("adaptive", "after.pth", "before.pth", ("bsd100",))
    assert study.models == ("after.pth",)
    assert [one.options["source"] for one in study.attacks if "source" in one.options] == ["before.pth"] * 2
