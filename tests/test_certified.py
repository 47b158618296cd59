"""Certificates of a folder: what is computed, what is kept, the command line and the page."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from resolute.certify import certify
from resolute.studies.certified import COLUMNS, SHARES, Certification
from resolute.studies.store import read_lines
from test_cli import fails, run
from test_report_browser import Watched

from resolute import ConfigError, ImageError, QualityNet, Study, as_scorer
from resolute.attacks.registry import AttackTable
from resolute.attacks.score import ScoreAttack
from resolute.certificates.median import prepared
from resolute.images import SAMPLE_NAMES, read_image, sample_image, write_png
from resolute.models.weights import save_model
from resolute.report import write_certificates
from resolute.studies.attacked import alarms, certified_words, verdict, words
from resolute.studies.demonstration import certification

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
def test_the_page_sorts_filters_and_explains(width, scheme, page, browser):
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


# --- gamed images


def attacks_of(rows):
    return [attack for row in rows for attack in row["attacks"]]


def test_attacks_are_records_of_their_own(metric, folder, tmp_path):
    out = tmp_path / "out"
    plain = plan(metric).run([folder], out)
    certificates = (out / "certificates.jsonl").read_text()
    kinds = (ScoreAttack(epsilon=4 / 255, steps=2), ScoreAttack(epsilon=4 / 255, steps=2, adaptive=True, draws=2))
    seen = []
    rows = plan(metric, attacks=kinds).run([folder], out, progress=lambda done, total, _title: seen.append(done))
    # An attack leaves the certificates as they were, and both attacks of each image are there.
    assert (out / "certificates.jsonl").read_text() == certificates
    assert [{key: row[key] for key in row if key != "attacks"} for row in rows] == plain
    assert seen == sorted(seen)
    assert len(attacks_of(rows)) == 6
    lines = (out / "attacks.jsonl").read_text()
    assert plan(metric, attacks=kinds).run([folder], out) == rows
    assert (out / "attacks.jsonl").read_text() == lines
    plan(metric, attacks=(ScoreAttack(epsilon=5 / 255, steps=2),)).run([folder / "coffee.png"], out)
    assert len(read_lines(out / "attacks.jsonl")) == 7
    for row in rows:
        on_metric, adaptive = row["attacks"]
        assert on_metric["attacked"] > on_metric["clean"]
        assert on_metric["attacked"] > adaptive["clean"]
        change = read_image(on_metric["path"]) - read_image(row["path"])
        assert on_metric["linf"] == pytest.approx(change.abs().max().item())
        assert 0 < on_metric["linf"] <= 4.001 / 255
        assert on_metric["l2"] == pytest.approx(change.norm().item(), rel=1e-4)
        assert 0 <= on_metric["defended"] <= 100


def test_a_lost_picture_and_a_torn_line_are_made_again(metric, folder, tmp_path):
    attacked = plan(metric, attacks=(ScoreAttack(epsilon=4 / 255, steps=1),))
    (row,) = attacked.run([folder / "coffee.png"], tmp_path / "out")
    picture = Path(row["attacks"][0]["path"])
    pixels = read_image(picture)
    picture.unlink()
    attacked.run([folder / "coffee.png"], tmp_path / "out")
    assert torch.equal(read_image(picture), pixels)
    path = tmp_path / "out" / "attacks.jsonl"
    path.write_text(path.read_text()[:-30])
    (again,) = attacked.run([folder / "coffee.png"], tmp_path / "out")
    assert again["attacks"][0]["defended"] == row["attacks"][0]["defended"]


def test_a_resized_image_is_attacked_as_it_was_certified(metric, folder, tmp_path):
    attack = ScoreAttack(epsilon=2 / 255, norm="l2", steps=2)
    (row,) = plan(metric, fit=44, attacks=(attack,)).run([folder / "rocket.png"], tmp_path / "out")
    (attacked,) = row["attacks"]
    assert list(read_image(attacked["path"]).shape[1:]) == row["size"] == [33, 44]
    assert row["undefended"] == pytest.approx(attacked["clean"])
    # Four samples by one level each are all that the radius of two levels holds, and no more than was proven for.
    assert attacked["l2"] == pytest.approx(2 / 255, rel=1e-4)
    assert attacked["linf"] == pytest.approx(1 / 255, rel=1e-4)
    assert verdict(row, attacked) == "inside, as proven"


def test_a_metric_where_lower_is_better_is_driven_down():
    contrast = as_scorer(lambda x: x.std(dim=(1, 2, 3)), "contrast", low=0.0, high=1.0, lower_better=True)
    image = sample_image("coffee")[:, 100:140, 100:140]
    for attack in (
        ScoreAttack(epsilon=4 / 255, steps=3),
        ScoreAttack(epsilon=0.2, norm="l2"),
        ScoreAttack(epsilon=0.05, adaptive=True),
    ):
        for found in attack(contrast, image, sigma=0.1).values():
            assert contrast(found[None]) < contrast(image[None])
    steps = as_scorer(lambda x: x.mean(dim=(1, 2, 3)).round(decimals=1), "steps")
    with pytest.raises(ConfigError, match="has no gradient"):
        ScoreAttack(epsilon=4 / 255)(steps, image)
    with pytest.raises(ConfigError, match="1/255 at least"):
        ScoreAttack(epsilon=0.001)


ROW = {
    "image": "photo.png", "score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "vacuous": False,
    "error": 0.001, "scorer": {"lower_better": False},
}  # fmt: skip
ATTACK = {
    "clean": 41.0, "attacked": 78.0, "defended": 52.6, "true_lower": 52.0, "true_upper": 53.2, "true_error": 0.001,
    "l2": 2.1, "linf": 2 / 255, "attack": {"adaptive": False}, "origin": "transferred",
}  # fmt: skip
INSIDE = {"l2": 0.01}
REFUTING = INSIDE | {"defended": 99.0, "true_lower": 98.6, "true_upper": 99.3}


@pytest.mark.parametrize(
    ("row", "attack", "found", "told"),
    [
        ({}, {}, "inside, as observed", "an observation, not a guarantee"),
        ({}, {"defended": 54.0}, "outside", "outside its interval [51, 53]. The change has l2 norm 2.1, larger than"),
        ({}, {"l2": 0.05}, "inside, as proven", "l2 norm 0.05, within the radius 0.05 for"),
        # Outside, and the true median of the attacked image may be inside: the sampling explains it.
        ({}, INSIDE | {"defended": 50.0, "true_lower": 49.0, "true_upper": 51.1}, "outside by sampling", "[49, 51.1]"),
        ({}, INSIDE | {"defended": 50.0, "true_lower": None, "true_upper": None}, "outside by sampling", "∞"),
        # Outside, and it is not: the certificate is wrong.
        ({}, REFUTING, "refuted", "[98.6, 99.3]"),
        ({}, INSIDE | {"defended": 3.0, "true_lower": 2.9, "true_upper": 3.1}, "refuted", "[2.9, 3.1]"),
        ({"vacuous": True, "lower": None}, REFUTING, "refuted", ", 53]"),
        ({}, REFUTING | {"l2": 0.06}, "outside", "nothing was promised"),
        ({"vacuous": True, "lower": None, "upper": None}, {}, "vacuous", ", ∞]"),
        ({"score": None}, {}, "abstained", "nothing is certified"),
        ({}, {"defended": None}, "abstained", "not finite on noisy copies of the attacked image"),
        ({}, {"linf": 8 / 255}, "inside, as observed", "by a change of at most 8/255"),
        ({}, {"attack": {"adaptive": True}, "origin": "adaptive"}, "inside, as observed", "through the defence: the"),
        ({}, {"attack": {"adaptive": True}}, "inside, as observed", "on the metric alone, at least as strong"),
        (
            {"scorer": {"lower_better": True}}, {"attacked": 20.0, "defended": 52.1}, "inside, as observed",
            "score (lower is better) fell from 41 to 20 by a change of at most 2/255; the defended score stayed at",
        ),
    ],
)  # fmt: skip
def test_what_is_proven_and_what_is_observed_are_told_apart(row, attack, found, told):
    assert verdict(ROW | row, ATTACK | attack) == found
    text = words(ROW | row, ATTACK | attack)
    assert told in text
    assert ("guarantee" in text) == (found == "inside, as observed")
    raised = alarms([ROW | row | {"attacks": [ATTACK | attack]}])
    assert len(raised) == (found == "refuted")
    assert all("photo.png" in alarm and told in alarm for alarm in raised)


def test_a_refuted_certificate_is_an_alarm(metric, folder, tmp_path):
    out, photo = tmp_path / "out", folder / "coffee.png"
    plan(metric, fit=384, attacks=(ScoreAttack(epsilon=0.01, norm="l2"),)).run([photo], out)
    (attack,), (certificate,) = (read_lines(out / f"{name}.jsonl") for name in ("attacks", "certificates"))
    beyond = certificate["upper"] + 1
    attack |= {"defended": beyond + 1, "true_lower": beyond, "true_upper": beyond + 2}
    (out / "attacks.jsonl").write_text(json.dumps(attack) + "\n")
    told = fails(
        10, "certify", photo, "--metric", metric, "--samples", 40, "--sigma", 0.1, "--attack", 0.01, "--norm", "l2",
        "--out", out,
    )  # fmt: skip
    assert "coffee.png" in told
    assert "refuted" in told
    page = (out / "report.html").read_text()
    assert page.count('role="alert"') == 1
    with (out / "attacks.csv").open() as file:
        assert [line["verdict"] for line in csv.DictReader(file)] == ["refuted"]


def test_the_true_median_of_an_attacked_image_is_in_its_record(metric, folder, tmp_path):
    (row,) = plan(metric, attacks=(ScoreAttack(epsilon=4 / 255, steps=1),)).run([folder / "coffee.png"], tmp_path)
    (attack,) = row["attacks"]
    again = certify(
        plan(metric).scorer(), read_image(attack["path"]), 0.1, 0.05, row["samples"], 0.001, seed=1
    )  # fmt: skip
    assert attack["defended"] == again.score
    assert (attack["true_lower"], attack["true_upper"]) == (again.at(0).lower, again.at(0).upper)
    assert attack["true_lower"] < attack["defended"] < attack["true_upper"]


def test_the_captions_speak_of_the_true_median():
    row = ROW | {"smoothing": {"deployed": 0}}
    assert "the true median stays" in certified_words(row)
    assert "a sampled median may stray" in certified_words(row)
    covered = certified_words(ROW | {"smoothing": {"deployed": 50}})
    assert "a median of 50 fresh samples" in covered
    assert "stray" not in covered


@pytest.mark.slow
def test_adaptive_attacks_are_at_least_as_strong_as_transferred_ones(tmp_path):
    for name in SAMPLE_NAMES:
        image = sample_image(name)
        height, width = image.shape[1:]
        shrink = 48 / max(height, width)
        write_png(tmp_path / f"{name}.png", prepared(image, (round(shrink * height), round(shrink * width))))
    kinds = tuple(ScoreAttack(epsilon=2 / 255, adaptive=adaptive) for adaptive in (False, True))
    rows = Certification(metric="quality-s", samples=60, attacks=kinds).run([tmp_path], tmp_path / "out")
    assert len(rows) == len(SAMPLE_NAMES)
    for row in rows:
        transferred, adaptive = row["attacks"]
        assert adaptive["defended"] >= transferred["defended"] > row["score"]
        assert adaptive["linf"] <= 2.001 / 255
    assert any(row["attacks"][1]["origin"] == "adaptive" for row in rows)


def test_attacks_on_the_command_line(metric, folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run(
        "certify", folder / "coffee.png", "--metric", metric, "--samples", 40, "--attack", "4/255", "--adaptive",
        "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "The undefended score rose from" in stdout
    assert "through the defence" in stdout
    assert 'id="gamed"' in (out / "report.html").read_text()
    with (out / "attacks.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["adaptive"] for line in lines] == ["False", "True"]
    assert {line["budget"] for line in lines} == {str(4 / 255)}
    assert {line["epsilon"] for line in lines} == {"0.05"}
    few = ("certify", folder, "--metric", metric, "--samples", 40, "--attack", 0.02, "--norm", "l2", "--out", out)
    assert "l2 0.02" in run(*few)[1]
    one = ("certify", folder, "--metric", metric, "--out", out)
    assert "--adaptive is about an attack" in fails(5, *one, "--adaptive")
    assert "--attack is a radius in (0, 1]" in fails(5, *one, "--attack", "much")
    assert "--attack is an l2 radius" in fails(5, *one, "--attack", "much", "--norm", "l2")
    assert "--norm is linf or l2" in fails(5, *one, "--attack", "2/255", "--norm", "l1")


def test_the_demonstration_ends_with_certificates(metric, tmp_path, monkeypatch):
    small = Study(
        name="demo", models=("bicubic",), attacks=(AttackTable(kind="fgsm"),), epsilons=(4,), crop=32, every=5
    )
    quick = dataclasses.replace(certification(), metric=str(metric), samples=40)
    monkeypatch.setattr(Study, "read", lambda _: small)
    monkeypatch.setattr("resolute.cli.attacking.certification", lambda seed: quick)
    code, stdout, _ = run("demo", "--out", tmp_path)
    assert code == 0
    assert "The undefended score" in stdout or "the undefended score" in stdout
    for page in (tmp_path / "report.html", tmp_path / "quality" / "report.html"):
        assert page.is_file()
        assert stdout.replace(" ", "").count(str(page)) == 2
    written = [(tmp_path / "quality" / name).read_text() for name in ("certificates.jsonl", "attacks.jsonl")]
    assert run("demo", "--out", tmp_path)[0] == 0
    assert [(tmp_path / "quality" / name).read_text() for name in ("certificates.jsonl", "attacks.jsonl")] == written


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_gamed_images_stand_side_by_side(width, scheme, metric, folder, tmp_path, browser):
    kinds = (ScoreAttack(epsilon=4 / 255, steps=2), ScoreAttack(epsilon=0.02, norm="l2", adaptive=True, draws=2))
    rows = plan(metric, attacks=kinds).run([folder], tmp_path / "out")
    Path(rows[0]["attacks"][0]["path"]).unlink()
    page = write_certificates(tmp_path / "out", rows)
    watched = Watched(browser, page, width, scheme, ready="#gamed .example")
    try:
        shown = watched.page.locator("#gamed .example")
        assert shown.count() == 3
        assert watched.page.locator("#gamed .example[open]").count() == 1
        shown.nth(1).locator("summary").focus()
        watched.page.keyboard.press("Enter")
        shown.nth(2).locator("summary").focus()
        watched.page.keyboard.press("Enter")
        assert watched.page.locator("#gamed .triple").count() == 5
        assert watched.page.get_by_text("The pictures are not to be had any more.").count() == 1
        for triple in watched.page.locator("#gamed .triple").all():
            boxes = [image.bounding_box() for image in triple.locator("img").all()]
            assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1
            assert boxes[0]["width"] > 50
        broken = "() => [...document.images].filter(image => !image.naturalWidth || !image.alt).length"
        watched.page.wait_for_function(f"() => ({broken})() === 0")
        row = next(row for row in rows if row["image"] == shown.nth(0).locator("summary").text_content())
        assert words(row, row["attacks"][0]) in (shown.nth(0).text_content() or "")
        track = watched.page.locator("#gamed .track:has(.span)").first
        dot, band = track.locator(".hollow").bounding_box(), track.locator(".span").bounding_box()
        assert band["x"] - 8 <= dot["x"] + dot["width"] / 2 <= band["x"] + band["width"] + 8
        assert watched.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        assert watched.trouble == []
        assert watched.requests == [page.as_uri()]
    finally:
        watched.context.close()
