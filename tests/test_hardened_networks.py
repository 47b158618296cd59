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
    for name, run in runs.items():
        id, form = name.split(":")
        assert id in script.NETWORKS
        assert form in script.FORMS
        assert {record.image for record in run.records} == {record.image for record in before[id].records}


def test_gains_are_paired_by_image(script, monkeypatch):
    from types import SimpleNamespace

    before = {name: SimpleNamespace(sr_psnr=float(place)) for place, name in enumerate("abc")}
    after = {name: SimpleNamespace(sr_psnr=float(place) + 2) for place, name in enumerate("abc")}
    assert script.gain(before, after, "sr_psnr") == "+2.00 [2.00, 2.00]"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("carn.pth#x4", "new.pth#x4"),
        ("net.pth", "new.pth"),
        ("net.py:Net#x4,weights=old.pth,blocks=5", "net.py:Net#x4,weights=new.pth,blocks=5"),
    ],
)
def test_an_address_with_other_weights(script, address, expected):
    assert script.with_weights(address, "new.pth") == expected
