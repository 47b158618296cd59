"""What changed between two studies, of every kind."""

import dataclasses
import json
import shutil

import pytest
from small import edit, rewrite
from test_cli import run as typed

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.report.cells import Measurement, Quantity, Side, read_side
from resolute.report.comparison import compare_folders, compare_sides, write_comparison


@pytest.fixture
def pair(finished, tmp_path):
    """Two folders of one study, to be changed."""
    return [shutil.copytree(finished, tmp_path / name) for name in ("before", "after")]


def compared(pair):
    return compare_folders(*pair)


def side(values, name="a", **quantity):
    cells = [Measurement(("m",), str(index), "", {"score": value}) for index, value in enumerate(values)]
    return Side(name, "k", ("model",), [Quantity("score", "dB", **quantity)], cells, {}, {}, {})


def test_a_study_does_not_differ_from_itself(pair):
    found = compared(pair)
    assert {delta.verdict for delta in found.deltas} == {"equal"}
    assert found.changes == found.singles == found.only == []
    assert "Nothing changed" in found.sentences[0]
    assert len(found.deltas) == 12


def test_a_loss_is_found_and_comes_first(pair):
    def worse(record):
        lost = 0.5 + (record.image == "coffee") if record.model == "tiny" and record.attack == "fda" else 0
        return dataclasses.replace(
            record, sr_psnr=record.sr_psnr - lost, weights="f" * 64 if record.model == "tiny" else record.weights
        )

    edit(pair[1], worse)
    found = compared(pair)
    assert [delta.verdict for delta in found.deltas] == ["worse"] * 2 + ["equal"] * 10
    first = found.deltas[0]
    assert first.setting[:2] == ("tiny", "FDA")
    assert first.values["SR-PSNR"].mean == pytest.approx(-1.0)
    assert first.values["SR-PSNR"].low == pytest.approx(-1.5)
    assert first.note == "other weights"
    assert [single.image for single in found.singles] == ["coffee"] * 2 + ["chelsea"] * 2
    assert "weights of tiny" in [change.what for change in found.changes]
    assert "worse in 2" in found.sentences[0]


def test_one_image_proves_nothing():
    found = compare_sides(side([30.0]), side([20.0], "b"))
    assert found.deltas[0].verdict == "may be chance"


def test_where_lower_is_better_a_rise_is_a_loss():
    found = compare_sides(side([1, 2, 3], lower_better=True), side([2, 3, 4.5], "b", lower_better=True))
    assert found.deltas[0].verdict == "worse"
    assert found.singles[0].after == 4.5
    assert compare_sides(side([1, 2, 3]), side([2, 3, 4.5], "b")).deltas[0].verdict == "better"


def test_what_is_infinite_in_one_is_in_no_mean():
    found = compare_sides(side([1, None, 3]), side([2, 5, 4], "b"))
    assert found.deltas[0].values["score"].n == 2
    assert compare_sides(side([None]), side([None], "b")).deltas[0].verdict == "equal"


def test_cells_of_one_study_alone_and_changed_pixels_are_in_no_difference(pair):
    edit(pair[1], lambda r: dataclasses.replace(r, pixels="0" * 64) if r.image == "coffee" else r)
    rewrite(pair[1], [record for record in Store(pair[1]).read() if record.model != "bicubic"])
    found = compared(pair)
    assert {delta.setting[0] for delta in found.deltas} == {"tiny", "tiny-entropy"}
    assert all(delta.images == 1 for delta in found.deltas)
    wheres = [(only.setting[0], only.where) for only in found.only]
    assert wheres.count(("bicubic", "only in before")) == 4
    assert wheres.count(("tiny", "other pixels under the same name")) == 4
    assert "16 cells" in found.sentences[-1]


def test_other_settings_and_versions_are_listed(pair):
    facts = json.loads((pair[1] / "study.json").read_text())
    facts["provenance"]["versions"]["torch"] = "9.9"
    facts["study"]["seed"] = 7
    (pair[1] / "study.json").write_text(json.dumps(facts))
    changes = {change.what: change.after for change in compared(pair).changes}
    assert changes == {"version of torch": "9.9", "seed": "7"}


def test_two_kinds_cannot_be_compared(pair):
    with pytest.raises(ConfigError, match="kind k"):
        compare_sides(read_side(pair[0]), side([1.0]))


def test_the_page_escapes_names(pair, tmp_path):
    name = "<script>alert(1)</script>"
    for folder in pair:
        edit(folder, lambda r: dataclasses.replace(r, model=r.model.replace("tiny", name)))
    page = write_comparison(compared(pair), tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert name not in page
    assert page.count("<script") == 1


def test_as_typed(pair):
    code, stdout, _ = typed("report", "--compare", *pair)
    assert code == 0
    assert (pair[1] / "comparison.html").is_file()
    assert "comparison.html" in stdout
    for arguments in ((), (pair[0], "--compare", *pair), ("--compare", *pair, "--out", pair[0] / "x.md")):
        code, _, stderr = typed("report", *arguments)
        assert code == 5
        assert "--compare" in stderr


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_in_a_browser(pair, tmp_path, browser, width, scheme):
    from test_report_browser import Watched

    edit(pair[1], lambda r: dataclasses.replace(r, sr_psnr=r.sr_psnr + (-1 if r.model == "tiny" else 0)))
    page = write_comparison(compared(pair), tmp_path / "page.html")
    watched = Watched(browser, page, width, scheme, ready="#deltas-table [aria-sort]")
    rows = watched.page.locator("#deltas-table tbody tr:visible")
    assert rows.count() == 12
    watched.page.get_by_label("Verdict").last.select_option("worse")
    assert rows.count() == 4
    watched.page.get_by_label("Find").fill("fda")
    assert rows.count() == 2
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert watched.trouble == []
    assert watched.requests == [page.as_uri()]
    watched.context.close()
