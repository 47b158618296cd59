"""Certificates of a folder: what is computed, what is kept, the command line and the page."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from test_cli import fails, run
from test_report_browser import Watched, browser  # noqa: F401, a fixture

from resolute import ImageError, QualityNet
from resolute.images import sample_image, write_png
from resolute.models.weights import save_model
from resolute.report import write_certificates
from resolute.studies.certified import COLUMNS, SHARES, Certification
from resolute.studies.store import read_lines

NAMES = ("coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def metric(tmp_path_factory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = QualityNet(widths=(8, 8), hidden=4)
    path = tmp_path_factory.mktemp("metric") / "tiny.safetensors"
    save_model(net, path, net.describe("tiny", licence="MIT"))
    return path


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(NAMES):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:148, 100 : 148 + 8 * index])
    return tmp_path / "photos"


def plan(metric, **changes):
    return Certification(**{"metric": str(metric), "samples": 40, "sigma": 0.1, **changes})


def test_only_what_is_new_is_computed(metric, folder, tmp_path):
    out, seen = tmp_path / "out", []
    first = plan(metric).run([folder], out, progress=lambda done, total, _title: seen.append((done, total)))
    assert [row["image"] for row in first] == sorted(f"{name}.png" for name in NAMES)
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)
    lines = (out / "certificates.jsonl").read_text()
    again = plan(metric).run([folder], out)
    assert (out / "certificates.jsonl").read_text() == lines
    assert again == first
    shutil.copy(folder / "coffee.png", folder / "same.png")
    write_png(folder / "zebra.png", sample_image("astronaut")[:, :50, :50])
    more = plan(metric).run([folder], out)
    # A copy under another name is the same image; the new one is the only new record.
    assert len(more) == 5
    assert len(read_lines(out / "certificates.jsonl")) == 4
    assert more[-2] | {"image": "coffee.png", "path": more[1]["path"]} == more[1]


@pytest.mark.parametrize("change", [{"sigma": 0.2}, {"epsilon": 0.1}, {"seed": 1}, {"noise": "grid"}, {"fit": 40}])
def test_other_settings_are_other_certificates(change, metric, folder, tmp_path):
    plan(metric).run([folder / "coffee.png"], tmp_path / "out")
    plan(metric, **change).run([folder / "coffee.png"], tmp_path / "out")
    assert len(read_lines(tmp_path / "out" / "certificates.jsonl")) == 2


def test_a_torn_line_is_done_again(metric, folder, tmp_path):
    out = tmp_path / "out"
    whole = plan(metric).run([folder], out)
    path = out / "certificates.jsonl"
    path.write_text(path.read_text()[:-40])
    mended = plan(metric).run([folder], out)
    without_time = [{key: value for key, value in row.items() if key != "seconds"} for row in mended]
    assert without_time == [{key: value for key, value in row.items() if key != "seconds"} for row in whole]
    assert len(read_lines(path)) == 3


def test_a_row_says_all_that_a_person_asks(metric, folder, tmp_path):
    (row,) = plan(metric, fit=44).run([folder / "rocket.png"], tmp_path / "out")
    assert row["lower"] <= row["score"] <= row["upper"]
    assert row["size"] == [33, 44]
    assert row["resized"] is True
    assert 0 <= row["safe_1"] <= row["safe_5"]
    assert SHARES == (0.01, 0.05)
    assert 0 <= row["undefended"] <= 100
    assert row["scorer"]["sha256"]
    radii = [point[0] for point in row["curve"]]
    assert radii == sorted(radii)
    assert "after resizing it to that size" in row["words"]
    with (tmp_path / "out" / "certificates.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert tuple(line) == COLUMNS
    assert float(line["lower"]) == row["lower"]


def test_a_width_stops_early(metric, folder, tmp_path):
    (row,) = plan(metric, samples=5000, width=50.0).run([folder / "coffee.png"], tmp_path / "out")
    assert row["samples"] < 5000
    assert row["smoothing"]["sequential"] is True


def test_small_images_are_named(metric, tmp_path):
    write_png(tmp_path / "dot.png", torch.zeros(3, 5, 9))
    with pytest.raises(ImageError, match=r"dot.png is too small: tiny needs 32 pixels a side"):
        plan(metric).run([tmp_path / "dot.png"], tmp_path / "out")


# --- the command line


def test_one_photo_is_told_in_a_sentence(metric, folder, tmp_path):
    code, stdout, _ = run(
        "certify", folder / "coffee.png", "--metric", metric, "--samples", 40, "--out", tmp_path / "out"
    )
    assert code == 0
    assert "coffee.png" in stdout
    assert "With confidence 99.9 %, the median of tiny under noise of sigma 0.12 stays in [" in stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_folder_is_a_table(metric, folder, tmp_path):
    code, stdout, _ = run(
        "certify", folder, "--metric", metric, "--samples", 40, "--exact", "--deployed", 100, "--epsilon", "5/255",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert all(f"{name}.png" in stdout for name in NAMES)
    rows = read_lines(tmp_path / "out" / "certificates.jsonl")
    assert {row["smoothing"]["noise"] for row in rows} == {"grid"}
    assert {row["epsilon"] for row in rows} == {5 / 255}
    assert "fresh samples" in rows[0]["words"]


def test_mistakes_are_told_in_one_line(metric, folder, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no quality metric named 'nonsense'" in fails(4, "certify", folder, "--metric", "nonsense", *out)
    assert "super-resolution model" in fails(4, "certify", folder, "--metric", "edsr-s", *out)
    assert "--epsilon is an l2 radius" in fails(5, "certify", folder, "--metric", metric, "--epsilon", "-1", *out)
    assert "cannot find" in fails(3, "certify", tmp_path / "none.png", "--metric", metric, *out)
    assert "edsr-s" in fails(4, "certify", folder, "--metric", metric, "--denoiser", "edsr-s", *out)


# --- the page


@pytest.fixture(scope="module")
def page(metric, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    for index, name in enumerate(NAMES):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:148, 100 : 148 + 8 * index])
    hostile = folder / "photos" / "<img src=x onerror=alert(1)>.png"
    write_png(hostile, sample_image("astronaut")[:, :40, :40])
    rows = plan(metric).run([folder / "photos"], folder / "out")
    gone = [{**row, "path": "/nowhere.png"} if row["image"] == "rocket.png" else row for row in rows]
    return write_certificates(folder / "out", gone)


def names(watched):
    return [text.strip() for text in watched.page.locator("#images li:not([hidden]) .name").all_text_contents()]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_sorts_filters_and_explains(width, scheme, page, browser):  # noqa: F811
    watched = Watched(browser, page, width, scheme, ready="#images li")
    try:
        assert len(names(watched)) == 4
        watched.page.get_by_label("Sort by").select_option("score")
        rows = {row["image"]: row for row in read_lines(page.parent / "certificates.jsonl")}
        by_score = sorted(rows, key=lambda name: rows[name]["score"])
        assert names(watched) == by_score
        watched.page.get_by_label("descending").check()
        assert names(watched) == by_score[::-1]
        watched.page.get_by_label("Find").fill("ROCK")
        assert names(watched) == ["rocket.png"]
        assert watched.page.locator("#count").text_content() == "1 of 4"
        watched.page.get_by_label("Find").fill("coffee")
        watched.page.locator("li:not([hidden]) summary").focus()
        watched.page.keyboard.press("Enter")
        words = watched.page.get_by_text("With confidence 99.9 %, the median of tiny")
        assert words.locator("visible=true").count() == 1
        wide = watched.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        assert watched.trouble == []
        assert watched.requests == [page.as_uri()]
    finally:
        watched.context.close()


def test_the_page_shows_what_is_missing_and_escapes_names(page):
    text = page.read_text()
    assert "no picture" in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror" in text
    assert json.loads((page.parent / "certification.json").read_text())["certification"]["sigma"] == 0.1
