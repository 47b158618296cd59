"""The table of smoothed networks in docs/restoration.md: it follows from the committed figures."""

import json
from pathlib import Path

import pytest
from small import script_of

PAGE = Path(__file__).parents[1] / "docs" / "restoration.md"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PAGE.parent)
        return script_of("make_smoothed")


def test_the_table_is_that_of_the_figures(script):
    words, table = script.published()
    page = PAGE.read_text(encoding="utf-8")
    assert words in page
    assert table.markdown().strip() in page


def test_the_goal_is_met_where_both_halves_of_it_are(script):
    found = [one for one in json.loads(script.FIGURES.read_text()).values() if "certified" in one]
    met = 0
    for one in found:
        left, kept = (one[name]["0.05"] for name in ("left", "certified"))
        assert left.keys() == kept.keys() == one["clean"].keys() == one["smoothed"].keys()
        gained = sum(kept.values()) - sum(left.values())
        lost = sum(one["clean"].values()) - sum(one["smoothed"].values())
        met += gained >= 5 * len(left) and lost <= 0.3 * len(left)
    words, _ = script.published()
    assert f"met by {met} of {len(found)}" in words
