"""Certified photographs: what is computed, what is kept, what is said, the command line and the page."""

import csv
import dataclasses
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small import read_lines, rewrite
from test_cli import fails, run
from watched import Watched

from resolute import ConfigError, ImageError, as_scorer
from resolute import run as run_study
from resolute.attacks.score import ScoreAttack
from resolute.certificates.certificate import Smoothing
from resolute.certificates.median import certify
from resolute.engine import Store
from resolute.engine.running import plan_of
from resolute.engine.store import files_of
from resolute.images import SAMPLE_NAMES, image_sha256, read_image, sample_image, write_png
from resolute.models import QualityNet
from resolute.models.fitted import resized, size_within
from resolute.models.scorers import load_scorer
from resolute.models.weights import save_model
from resolute.report.comparison import compare_folders
from resolute.report.page import write_markdown, write_page
from resolute.studies import certification, score_study, scored
from resolute.studies.certification import Certification
from resolute.studies.score_attacked import ScoreAttackRecord, verdict
from resolute.studies.score_study import parted
from resolute.studies.score_words import attack_words, certified_words
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord

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


@pytest.fixture
def drawn(monkeypatch):
    """Names of the images that samples are drawn for."""
    found = []

    def counted(cell, *arguments):
        found.append(Path(cell.name).name)
        return scored.scored(cell, *arguments)

    monkeypatch.setattr(score_study, "scored", counted)
    return found


def plan(metric, *images, **changes):
    images = tuple(map(str, images))
    # With a seed, so that runs repeat.
    kept = {"samples": 40, "sigma": 0.1, "seed": 0}
    return Certification(**{"images": images, "metric": str(metric), **kept, **changes})


def certified(study, out, **options):
    return parted(run_study(study, out, **options))


def figures(folder):
    return [record.figures() for record in Store(folder).read()]


def lines(folder):
    return [line for file in files_of(folder, "records") for line in read_lines(file)]


# --- what is computed


def test_a_record_is_the_certificate_of_its_image(metric, folder, tmp_path):
    scores, attacks = certified(plan(metric, folder), tmp_path / "out")
    assert not attacks
    assert [Path(score.image).name for score in scores] == sorted(f"{name}.png" for name in NAMES)
    for score in scores:
        image = read_image(Path(score.image))
        made = certify(load_scorer(str(metric)), image, 0.1, 0.05, 40, 0.001, seed=0)
        assert (score.score, score.lower, score.upper) == (made.score, made.lower, made.upper)
        assert score.interval(0.05) == (made.lower, made.upper)
        assert score.samples == tuple(made.scores)
        assert score.undefended == pytest.approx(load_scorer(str(metric))(image[None]).item())
        assert (score.low, score.high, score.span) == (0, 100, 100)
        assert score.pixels == image_sha256(image)
        assert score.certificate.words() == made.words()
        for radius in (0.01, 0.1, 1.0):
            assert score.at(radius).bounds == made.at(radius)
    assert json.loads((tmp_path / "out" / "study.json").read_text())["study"]["sigma"] == 0.1


def test_only_what_is_new_is_computed(metric, folder, tmp_path, drawn):
    out, seen = tmp_path / "out", []
    first = run_study(plan(metric, folder), out, progress=lambda done, total, _title: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)
    assert len(drawn) == 3
    before = (out / "records.jsonl").read_bytes()
    assert run_study(plan(metric, folder), out) == first
    assert (out / "records.jsonl").read_bytes() == before
    write_png(folder / "zebra.png", sample_image("astronaut")[:, :50, :50])
    more = run_study(plan(metric, folder), out)
    assert more[:-1] == first
    assert drawn[3:] == ["zebra.png"]


def test_equal_pixels_are_two_files(metric, folder, tmp_path):
    shutil.copy(folder / "coffee.png", folder / "same.png")
    scores, _ = certified(plan(metric, folder), tmp_path / "out")
    own = {Path(score.image).name: score for score in scores}
    assert len(own) == 4
    assert own["same.png"].samples == own["coffee.png"].samples


def test_another_radius_is_answered_from_the_stored_samples(metric, folder, tmp_path, drawn):
    out = tmp_path / "out"
    plans = [plan(metric, folder, samples=100, epsilon=radius) for radius in (0.05, 0.1, 0.02)]
    first = run_study(plans[0], out)
    del drawn[:]
    assert [run_study(study, out) for study in plans[1:]] == [first, first]
    assert drawn == []
    widths = [[study.measured(score).values["certified width"] for score in first] for study in plans]
    for score, asked, wider, narrower in zip(first, *widths, strict=True):
        assert narrower < asked < wider
        fresh = certify(load_scorer(str(metric)), read_image(Path(score.image)), 0.1, 0.1, 100, 0.001, seed=0)
        assert score.interval(0.1) == (fresh.lower, fresh.upper)
        assert asked == score.upper - score.lower
    table = plans[1].results(first).tables[0].records()
    assert [(line["from"], line["to"]) for line in table] == [score.interval(0.1) for score in first]


def test_where_the_radius_decides_when_to_stop_another_one_draws_anew(metric, folder, tmp_path, drawn):
    photo, out = folder / "coffee.png", tmp_path / "out"
    for radius in (0.02, 0.1):
        run_study(plan(metric, photo, epsilon=radius, samples=3000, width=20.0), out)
        (fresh,) = run_study(plan(metric, photo, epsilon=radius, samples=3000, width=20.0), tmp_path / f"{radius}")
        assert fresh.figures() in figures(out)
    assert len(lines(out)) == 2


@pytest.mark.parametrize("change", [{"sigma": 0.2}, {"seed": 1}, {"noise": "grid"}, {"fit": 40}, {"samples": 50}])
def test_other_settings_are_other_certificates(change, metric, folder, tmp_path):
    for study in (plan(metric, folder / "coffee.png"), plan(metric, folder / "coffee.png", **change)):
        (record,) = run_study(study, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 2
    assert Store(tmp_path / "out").order() == [record.key]


def test_a_declared_range_is_part_of_the_question(folder):
    image = read_image(folder / "coffee.png")

    def key(high):
        scorer = as_scorer(lambda x: 100 * x.mean(dim=(1, 2, 3)), "mean", low=0.0, high=high)
        contestant = Contestant(defence="", bare=scorer, scorer=scorer, smoothing=Smoothing())
        return ScoreCell.of(contestant, "x", image).key

    assert key(1.0) != key(100.0)


@pytest.mark.parametrize("noise", ["gaussian", "grid"])
def test_an_image_that_is_shrunk_is_certified_as_a_file(noise, metric, folder, tmp_path):
    study = plan(metric, folder / "rocket.png", fit=44, noise=noise)
    (score,) = run_study(study, tmp_path / "out")
    image = read_image(folder / "rocket.png")
    assert (score.width, score.height) == (image.shape[2], image.shape[1])
    assert score.pixels == image_sha256(image)
    assert size_within(image, 44) == (33, 44)
    # Exact noise is added to the file's own pixels, and shrunk with them.
    shrunk = noise == "gaussian"
    assert score.size == ((33, 44) if shrunk else None)
    assert (score.lengthening < 1) == shrunk
    with torch.no_grad():
        seen = load_scorer(str(metric))(resized(image[None], (33, 44)))
    assert score.undefended == pytest.approx(seen.item())
    assert score.lower <= score.score <= score.upper
    assert score.scorer["sha256"]
    assert ("resizing" in score.certificate.words()) == shrunk
    assert score.radii() == sorted(score.radii())


def test_without_a_seed_each_image_has_noise_of_its_own_that_is_kept(metric, folder, tmp_path, drawn):
    study = plan(metric, folder, seed=None)
    first = run_study(study, tmp_path / "out")
    assert len({score.seed for score in first}) == len(NAMES)
    assert all(score.smoothing.drawn and score.smoothing.seed == score.seed for score in first)
    drawn.clear()
    assert [score.figures() for score in run_study(study, tmp_path / "out")] == [score.figures() for score in first]
    assert drawn == []
    assert run_study(study, tmp_path / "again")[0].samples != first[0].samples


def test_an_option_that_shrinks_too_far_is_blamed_and_not_the_file(metric, folder):
    with pytest.raises(ImageError, match="--fit"):
        plan_of(plan(metric, folder, fit=20))


def test_a_width_stops_early(metric, folder, tmp_path):
    (score,) = run_study(plan(metric, folder / "coffee.png", samples=5000, width=50.0), tmp_path / "out")
    assert len(score.samples) < 5000
    assert score.smoothing.sequential is True
    assert score.upper - score.lower <= 50


def test_small_images_are_named(metric, tmp_path):
    write_png(tmp_path / "dot.png", torch.zeros(3, 5, 9))
    with pytest.raises(ImageError, match=r"dot\.png .*\b32\b"):
        run_study(plan(metric, tmp_path / "dot.png"), tmp_path / "out")


def test_scores_that_are_not_finite_abstain(folder, tmp_path, monkeypatch):
    def holed(x):
        # Whole on the images that a metric is tried with.
        good = (x[:, 0, 0, 0] > 0.5) | (x.shape[-1] != 40)
        return torch.where(good, x.mean(dim=(1, 2, 3)), torch.nan)

    monkeypatch.setattr(certification, "load_scorer", lambda _name: as_scorer(holed, "holed"))
    write_png(folder / "gray.png", torch.full((3, 40, 40), 0.502))
    study = plan("holed", folder / "gray.png", folder / "rocket.png", samples=60)
    scores, _ = certified(study, tmp_path / "out")
    gray = scores[0]
    assert 0 < gray.non_finite < 60
    assert (gray.score, gray.samples, gray.interval(0.05), gray.safe_1) == (None, (), (None, None), None)
    assert gray.certificate.abstained
    results = study.results(scores)
    assert "abstained" in results.sentences[0]
    assert results.tables[0].records()[0]["samples"] == "abstained"
    assert "abstained" in write_markdown([tmp_path / "out"], tmp_path / "x.md").read_text()
    write_page([tmp_path / "out"], tmp_path / "page.html")


# --- what the samples can say


def made_of(samples, *, n=None, epsilon=0.05, low=0.0, high=1.0, key="0" * 24, **changes):
    """A record made by hand, as a metric of the range [low, high] would leave it."""
    facts = {
        "key": key, "model": "m", "weights": "", "image": "photo.png", "pixels": "0", "width": 8, "height": 8,
        "seed": 0, "seconds": 0.0, "score": float(np.sort(samples)[(len(samples) - 1) // 2]), "undefended": 0.5,
        "smoothing": Smoothing(n=n or len(samples)), "samples": tuple(map(float, samples)), "low": low, "high": high,
        "span": None if low is None else high - low, "epsilon": epsilon, "scorer": {"name": "m", "lower_better": False},
    }  # fmt: skip
    return ScoreRecord(**facts | changes)


def test_a_safe_radius_that_the_samples_cannot_show_is_none_and_no_zero(tmp_path, monkeypatch):
    pixel = as_scorer(lambda x: x[:, 0, 0, 0], "pixel", low=0.0, high=1.0)
    monkeypatch.setattr(certification, "load_scorer", lambda _name: pixel)
    for index in range(3):
        write_png(tmp_path / "gray" / f"{index}.png", torch.full((3, 4, 4 + index), 0.5))
    study = plan("pixel", tmp_path / "gray", samples=16)
    scores, _ = certified(study, tmp_path / "out")
    assert all(score.certificate.shift(0) > 0.05 for score in scores)
    assert {(score.safe_1, score.safe_5) for score in scores} == {(None, None)}
    table = study.results(scores).tables[0]
    assert {(line["safe 1%"], line["safe 5%"]) for line in table.records()} == {(None, None)}
    assert "3 images" in table.notes[0]
    assert "--samples" in table.notes[0]
    assert "0.0000" not in table.markdown()


def test_a_safe_radius_that_more_samples_would_raise_is_marked(tmp_path):
    # All alike: the shift is bounded by 0 as far as the ranks exist, and by the range beyond.
    flat = made_of([0.5] * 100)
    reach = flat.certificate.largest_epsilon(0.05)
    assert flat.certificate.exhausted(reach)
    assert not flat.certificate.exhausted(0.9 * reach)
    assert flat.certificate.shift(reach) == 0
    assert flat.certificate.shift(1.001 * reach) == 0.5
    moving = made_of(np.linspace(0.3, 0.7, 2000))
    found = moving.certificate.largest_epsilon(0.1)
    assert 0 < found < 0.12
    assert not moving.certificate.exhausted(found)
    scores = [
        dataclasses.replace(flat, safe_1=reach, safe_5=reach),
        dataclasses.replace(moving, key="1" * 24, safe_1=None, safe_5=found),
    ]
    table = Certification(images=("photo.png",)).results(scores).tables[0]
    assert ["100 samples" in row.cells[5].note for row in table.rows] == [True, False]
    assert table.rows[1].cells[6].note == ""


def test_samples_that_bound_nothing_say_so(tmp_path):
    few = made_of([0.4, 0.5, 0.6])
    study = Certification(images=("photo.png",))
    several = [few, dataclasses.replace(few, key="1" * 24)]
    results = study.results(several)
    assert few.interval(0.05) == (0, 1)
    assert "suffice" in results.sentences[0]
    assert results.charts == []
    assert study.measured(few).values == {"certified width": None, "score": 0.5}
    open_ended = made_of([0.4, 0.5, 0.6], low=None, high=None)
    assert open_ended.interval(0.05) == (None, None)
    line = study.results([open_ended]).tables[0].records()[0]
    assert (line["from"], line["to"]) == (-math.inf, math.inf)
    (row,) = study.results([few]).tables[0].rows
    assert [cell.note != "" for cell in row.cells[3:5]] == [True, True]
    (row,) = study.results([made_of(np.linspace(0, 1, 200))]).tables[0].rows
    assert [cell.note for cell in row.cells[3:5]] == ["", ""]


def test_a_declared_range_that_cuts_scores_off_is_said(folder, tmp_path, monkeypatch):
    bright = as_scorer(lambda x: 100 * x.mean(dim=(1, 2, 3)), "bright", low=0.0, high=1.0)
    monkeypatch.setattr(certification, "load_scorer", lambda _name: bright)
    scores, _ = certified(plan("bright", folder), tmp_path / "out")
    assert {score.interval(0.05) for score in scores} == {(1.0, 1.0)}
    for study_of_one in (scores, scores[:1]):
        text = plan("bright", folder).results(study_of_one).sentences[0]
        assert "bright" in text
        assert "too small" in text
    assert "too small" not in made_of([0.2, 0.5, 0.7]).certificate.words()


def test_what_is_lost_or_has_changed_is_not_shown(metric, folder, tmp_path):
    study = plan(metric, folder)
    records = run_study(study, tmp_path / "out")
    assert len(list(study.cases(records, tmp_path / "out"))) == 3
    (folder / "coffee.png").unlink()
    write_png(folder / "rocket.png", torch.zeros(3, 48, 64))
    assert [case.title for case in study.cases(records, tmp_path / "out")] == ["chelsea.png"]


# --- attacks


def test_attacks_are_records_of_their_own(metric, folder, tmp_path):
    out = tmp_path / "out"
    plain = run_study(plan(metric, folder), out)
    kinds = (ScoreAttack(epsilon=4 / 255, steps=2), ScoreAttack(epsilon=4 / 255, steps=2, adaptive=True, draws=2))
    seen, study = [], plan(metric, folder, attacks=kinds)
    scores, attacks = certified(study, out, progress=lambda done, total, _title: seen.append(done))
    # An attack leaves the certificates as they were, and both attacks of each image are there.
    assert scores == plain
    assert seen == sorted(seen)
    assert len(attacks) == 6
    before = (out / "records.jsonl").read_bytes()
    assert certified(study, out) == (scores, attacks)
    assert (out / "records.jsonl").read_bytes() == before
    run_study(plan(metric, folder / "coffee.png", attacks=(ScoreAttack(epsilon=5 / 255, steps=2),)), out)
    assert len(lines(out)) == 3 + 6 + 1
    for score in scores:
        on_metric, adaptive = (attack for attack in attacks if attack.clean_key == score.key)
        assert (on_metric.adaptive, adaptive.adaptive) == (False, True)
        assert on_metric.clean == score.undefended < on_metric.attacked
        assert adaptive.defended >= on_metric.defended
        change = read_image(out / on_metric.files[0]) - read_image(Path(score.image))
        assert on_metric.linf == pytest.approx(change.abs().max().item())
        assert 0 < on_metric.linf <= 4.001 / 255
        assert on_metric.l2 == pytest.approx(change.norm().item(), rel=1e-4)
        assert 0 <= on_metric.defended <= 100
        assert on_metric.budget == 4


def test_a_lost_picture_is_made_again(metric, folder, tmp_path):
    study = plan(metric, folder / "coffee.png", attacks=(ScoreAttack(epsilon=4 / 255, steps=1),))
    _, (attack,) = certified(study, tmp_path / "out")
    picture = tmp_path / "out" / attack.files[0]
    pixels = read_image(picture)
    picture.unlink()
    _, (again,) = certified(study, tmp_path / "out")
    assert torch.equal(read_image(picture), pixels)
    assert again.figures() == attack.figures()


def test_a_resized_image_is_attacked_as_it_was_certified(metric, folder, tmp_path):
    attack = ScoreAttack(epsilon=2 / 255, norm="l2", steps=2)
    (score,), (attacked,) = certified(plan(metric, folder / "rocket.png", fit=44, attacks=(attack,)), tmp_path / "out")
    image = read_image(folder / "rocket.png")
    assert read_image(tmp_path / "out" / attacked.files[0]).shape == image.shape
    assert score.size == (33, 44)
    assert score.undefended == pytest.approx(attacked.clean)
    # Four samples by one level each are all that the radius of two levels holds, and no more than was proven for.
    assert attacked.l2 == pytest.approx(2 / 255, rel=1e-4)
    assert attacked.linf == pytest.approx(1 / 255, rel=1e-4)
    assert verdict(score, attacked, 0.05) == "inside, as proven"


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
    with pytest.raises(ConfigError, match="gradient"):
        ScoreAttack(epsilon=4 / 255)(steps, image)
    with pytest.raises(ConfigError, match="1/255 at least"):
        ScoreAttack(epsilon=0.001)


def test_the_true_median_of_an_attacked_image_is_in_its_record(metric, folder, tmp_path):
    study = plan(metric, folder / "coffee.png", attacks=(ScoreAttack(epsilon=4 / 255, steps=1),))
    (score,), (attack,) = certified(study, tmp_path)
    image = read_image(tmp_path / attack.files[0])
    again = certify(load_scorer(str(metric)), image, 0.1, 0.05, len(score.samples), 0.001, seed=1)
    assert attack.defended == again.score
    assert (attack.true_lower, attack.true_upper) == (again.at(0).lower, again.at(0).upper)
    assert attack.true_lower < attack.defended < attack.true_upper
    assert attack.true_error == again.error == 0.001


@pytest.mark.slow
def test_adaptive_attacks_are_at_least_as_strong_as_transferred_ones(tmp_path):
    for name in SAMPLE_NAMES[:3]:
        image = sample_image(name)
        height, width = image.shape[1:]
        shrink = 48 / max(height, width)
        write_png(tmp_path / f"{name}.png", resized(image[None], (round(shrink * height), round(shrink * width)))[0])
    kinds = tuple(ScoreAttack(epsilon=2 / 255, adaptive=adaptive) for adaptive in (False, True))
    study = Certification(images=(str(tmp_path),), metric="quality-s", samples=60, seed=0, attacks=kinds)
    scores, attacks = certified(study, tmp_path / "out")
    assert len(scores) == 3
    for score in scores:
        transferred, adaptive = (attack for attack in attacks if attack.clean_key == score.key)
        assert adaptive.defended >= transferred.defended > score.score
        assert adaptive.linf <= 2.001 / 255
    assert any(attack.origin == "adaptive" for attack in attacks)


# --- words

# The interval is [51, 53] at the radius 0.05, and that or a wider one at larger radii.
SAMPLES = [50.0] * 100 + [51.0] * 399 + [52.1] * 2 + [53.0] * 399 + [54.0] * 100
SCORE = made_of(SAMPLES, low=0.0, high=100.0)
DOWN = {"name": "m", "lower_better": True}
VACUOUS = made_of([51.0, 52.1, 53.0], low=None, high=None)
HALF = made_of([*SAMPLES[:20], *SAMPLES[-20:]], low=None, high=None)
ATTACK = ScoreAttackRecord(
    key="1" * 24, model="m", weights="", image="photo.png", pixels="0", width=8, height=8, seed=0, seconds=0.0,
    clean_key=SCORE.key, configuration="", adaptive=False, origin="transferred", norm="linf", budget=2.0, rounded=True,
    clean=41.0, attacked=78.0, defended=52.6, true_lower=52.0, true_upper=53.2, true_error=0.001, l2=2.1, linf=2 / 255,
)  # fmt: skip
INSIDE = {"l2": 0.01}
REFUTING = INSIDE | {"defended": 99.0, "true_lower": 98.6, "true_upper": 99.3}


def test_the_record_made_by_hand_has_the_interval_that_the_words_speak_of():
    assert SCORE.interval(0.05) == (51.0, 53.0)
    assert SCORE.interval(0.01) == (51.0, 53.0)
    assert VACUOUS.interval(0.05) == (None, None)


@pytest.mark.parametrize(
    ("score", "attack", "found", "told"),
    [
        (SCORE, {}, "inside, as observed", "an observation, not a guarantee"),
        (SCORE, {"defended": 54.5}, "outside", "its interval [51, 53]. The change has l2 norm 2.1, larger than"),
        (SCORE, {"l2": 0.05}, "inside, as proven", "l2 norm 0.05, within the radius 0.05 for"),
        # Outside, and the true median of the attacked image may be inside: the sampling explains it.
        (
            SCORE, INSIDE | {"defended": 50.0, "true_lower": 49.0, "true_upper": 51.1}, "outside by sampling",
            "[49, 51.1]",
        ),
        (SCORE, INSIDE | {"defended": 50.0, "true_lower": None, "true_upper": None}, "outside by sampling", "∞"),
        # Outside, and it is not: the certificate is wrong.
        (SCORE, REFUTING, "refuted", "[98.6, 99.3]"),
        (SCORE, INSIDE | {"defended": 3.0, "true_lower": 2.9, "true_upper": 3.1}, "refuted", "[2.9, 3.1]"),
        # What is certified for the distance of the attack counts, not what was asked for.
        (SCORE, REFUTING | {"l2": 0.06}, "refuted", "[98.6, 99.3]"),
        (SCORE, REFUTING | {"l2": 2.1}, "outside", "nothing was promised"),
        (VACUOUS, {}, "vacuous", "∞]"),
        (
            dataclasses.replace(SCORE, score=None, samples=(), non_finite=3), {}, "abstained", "nothing is certified",
        ),
        (SCORE, {"defended": None}, "abstained", "not finite on noisy copies of the attacked image"),
        (SCORE, {"linf": 8 / 255}, "inside, as observed", "by a change of at most 8/255"),
        (SCORE, {"adaptive": True, "origin": "adaptive"}, "inside, as observed", "through the defence: the"),
        (SCORE, {"adaptive": True}, "inside, as observed", "on the metric alone, at least as strong"),
        (
            dataclasses.replace(SCORE, scorer=DOWN), {"attacked": 20.0, "defended": 52.1},
            "inside, as observed",
            "score (lower is better) fell from 41 to 20 by a change of at most 2/255; the defended score stayed at",
        ),
    ],
)  # fmt: skip
def test_what_is_proven_and_what_is_observed_are_told_apart(score, attack, found, told):
    attack = dataclasses.replace(ATTACK, **attack)
    assert verdict(score, attack, 0.05) == found
    text = attack_words(score, attack, 0.05)
    assert told in text
    assert ("guarantee" in text) == (found == "inside, as observed")
    results = Certification(images=("photo.png",)).results([score, attack])
    assert bool(results.alarm) == (found == "refuted")
    if results.alarm:
        assert "photo.png" in results.alarm
        assert told in results.alarm


def test_the_captions_speak_of_the_true_median():
    assert "true median" in certified_words(SCORE, 0.05)
    assert "stray" in certified_words(SCORE, 0.05)
    covered = certified_words(dataclasses.replace(SCORE, smoothing=Smoothing(n=1000, deployed=50)), 0.05)
    assert "50 fresh" in covered
    assert "stray" not in covered


def refute(out):
    """Let the attack in a folder contradict what was certified."""
    scores, (attack, *_) = parted(Store(out).read())
    beyond = next(score for score in scores if score.key == attack.clean_key).upper + 1
    wrong = dataclasses.replace(attack, defended=beyond + 1, true_lower=beyond, true_upper=beyond + 2)
    rewrite(out, [*scores, wrong])


def test_a_refuted_certificate_is_an_alarm(metric, folder, tmp_path):
    out, photo = tmp_path / "out", folder / "coffee.png"
    typed = (
        "certify", photo, "--metric", metric, "--samples", 40, "--sigma", 0.1, "--attack", 0.01, "--norm", "l2",
        "--out", out,
    )  # fmt: skip
    assert run(*typed)[0] == 0
    assert 'role="alert"' not in (out / "report.html").read_text()
    refute(out)
    told = fails(10, *typed)
    assert "coffee.png" in told
    assert "refuted" in told
    page = (out / "report.html").read_text()
    assert page.count('role="alert"') == 1
    study = Certification(images=(str(photo),), attacks=(ScoreAttack(epsilon=0.01, norm="l2"),))
    records = Store(out).read()
    assert study.results(records).tables[1].records()[0]["defended score is"] == "refuted"
    assert "refuted" in write_markdown([out], tmp_path / "x.md").read_text().partition("\n")[0]


def test_what_is_refuted_is_shown_first(metric, folder, tmp_path):
    study = plan(metric, folder, attacks=(ScoreAttack(epsilon=0.01, norm="l2", steps=1),))
    run_study(study, tmp_path / "out")
    scores, attacks = parted(Store(tmp_path / "out").read())
    narrow = min(scores, key=lambda score: score.upper - score.lower)
    own = next(attack for attack in attacks if attack.clean_key == narrow.key)
    wrong = dataclasses.replace(own, true_lower=narrow.upper + 1, true_upper=narrow.upper + 2)
    first = next(iter(study.cases([*scores, wrong], tmp_path / "out")))
    assert first.title == Path(narrow.image).name
    assert "refuted" in first.facts[1]


# --- the command line


def test_one_photo_is_told_in_a_sentence(metric, folder, tmp_path):
    code, stdout, _ = run(
        "certify", folder / "coffee.png", "--metric", metric, "--samples", 40, "--out", tmp_path / "out"
    )
    assert code == 0
    assert "coffee.png" in stdout
    (score,) = Store(tmp_path / "out").read()
    for told in ("99.9 %", "tiny", "0.12", f"[{score.lower:.6g}, {score.upper:.6g}]"):
        assert told in stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_folder_is_a_table_and_a_query_away_from_csv(metric, folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run(
        "certify", folder, "--metric", metric, "--samples", 40, "--exact", "--deployed", 100, "--epsilon", "5/255",
        "--out", out,
    )  # fmt: skip
    assert code == 0
    assert all(f"{name}.png" in stdout for name in NAMES)
    scores, _ = parted(Store(out).read())
    assert {score.smoothing.noise for score in scores} == {"grid"}
    assert {score.epsilon for score in scores} == {5 / 255}
    assert "fresh samples" in scores[0].certificate.words()
    code, _, _ = run(
        "query", "SELECT * FROM scores ORDER BY image", "--runs", out, "--format", "csv", "--out", tmp_path / "x.csv"
    )
    assert code == 0
    read = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [float(line["lower"]) for line in read] == [score.lower for score in scores]
    assert [float(line["score"]) for line in read] == [score.score for score in scores]
    assert [line["image"] for line in read] == [score.image for score in scores]


def test_a_report_and_a_query_on_a_folder_of_certificates(metric, folder, tmp_path):
    out = tmp_path / "out"
    run_study(plan(metric, folder, attacks=(ScoreAttack(epsilon=4 / 255, steps=1),)), out)
    assert run("report", out)[0] == 0
    assert "chelsea.png" in (out / "report.html").read_text()
    assert run("report", out, "--out", tmp_path / "tables.md")[0] == 0
    markdown = (tmp_path / "tables.md").read_text()
    assert "| coffee.png" in markdown
    assert "safe 1" in markdown
    asked = "SELECT count(*) AS n FROM score_attacks JOIN scores ON score_attacks.clean_key = scores.key"
    code, stdout, _ = run("query", asked, "--runs", out, "--format", "json")
    assert (code, json.loads(stdout)) == (0, [{"n": 3}])


def test_two_folders_are_compared_by_the_width_of_their_intervals(metric, folder, tmp_path):
    for name, samples in (("few", 60), ("more", 300)):
        run_study(plan(metric, folder, samples=samples), tmp_path / name)
    assert {delta.verdict for delta in compare_folders(tmp_path / "few", tmp_path / "few").deltas} == {"equal"}
    found = compare_folders(tmp_path / "few", tmp_path / "more")
    (delta,) = found.deltas
    assert delta.verdict == "better"
    assert delta.images == 3
    assert delta.values["certified width"].high < 0
    assert {change.what: change.after for change in found.changes}["samples"] == "300"
    code, stdout, _ = run("report", "--compare", tmp_path / "more", tmp_path / "few", "--out", tmp_path / "page.html")
    assert code == 0
    assert "worse in 1" in stdout
    assert "certified width" in (tmp_path / "page.html").read_text()


def test_mistakes_are_told_in_one_line(metric, folder, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "'nonsense'" in fails(4, "certify", folder, "--metric", "nonsense", *out)
    assert "edsr-s" in fails(4, "certify", folder, "--metric", "edsr-s", *out)
    assert "--epsilon" in fails(5, "certify", folder, "--metric", metric, "--epsilon", "-1", *out)
    assert "cannot find" in fails(3, "certify", tmp_path / "none.png", "--metric", metric, *out)
    assert "edsr-s" in fails(4, "certify", folder, "--metric", metric, "--denoiser", "edsr-s", *out)
    for one, option in (("--sigma", 0), ("--samples", 0), ("--alpha", 1)):
        code, _, stderr = run("certify", folder, "--metric", metric, one, option, *out)
        assert code == 2
        assert one in stderr


def test_one_image_that_cannot_be_scored_costs_no_other(metric, folder, tmp_path):
    write_png(folder / "strip.png", sample_image("coffee")[:, 100:120, 100:580])
    asked = ("certify", folder, "--metric", metric, "--fit", 256, "--samples", 20, "--out", tmp_path / "out")
    assert run(*asked)[0] == 8
    write_png(folder / "strip.png", sample_image("coffee")[:, 100:140, 100:580])
    assert run(*asked)[0] == 8
    small, shrunk = read_lines(tmp_path / "out" / "failed.jsonl")
    assert Path(small["title"]).name == Path(shrunk["title"]).name == "strip.png"
    assert "--fit" not in small["reason"]
    assert "raise --fit" in shrunk["reason"]
    assert {Path(one.image).name for one in Store(tmp_path / "out").read()} == {f"{name}.png" for name in NAMES}


ODD_METRICS = """
import torch
from resolute.models.base import Scorer

def random(x):
    return torch.rand(len(x))

class Counter(torch.nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return x.mean(dim=(1, 2, 3)) + self.calls

class Liar(Scorer):
    low, high = 0.0, 0.99
    def arguments(self):
        return {"class": "Liar"}
    def forward(self, x):
        return x.mean(dim=(1, 2, 3)) * (3.0 if x.shape[-1] == 56 else 1.0)
"""


@pytest.mark.parametrize("name", ["random", "Counter", "Liar"])
def test_odd_metrics_are_told_in_one_line_and_the_rest_is_done(name, folder, tmp_path):
    (tmp_path / "odd.py").write_text(ODD_METRICS)
    asked = ("certify", folder, "--metric", f"{tmp_path / 'odd.py'}:{name}", "--samples", 20, "--out", tmp_path / "out")
    code, _, stderr = run(*asked)
    assert code == 8
    told = read_lines(tmp_path / "out" / "failed.jsonl")
    if name == "Liar":
        assert [Path(one["title"]).name for one in told] == [f"{NAMES[1]}.png"]
        assert stderr.count("not computed:") == 1
        assert "range [0, 0.99]" in told[0]["reason"]
        assert len(Store(tmp_path / "out").read()) == len(NAMES) - 1
    else:
        assert all("different scores" in one["reason"] and "--trust" in one["reason"] for one in told)
        assert len(told) == len(NAMES)
        assert run(*asked, "--trust")[0] == 0


def test_attacks_on_the_command_line(metric, folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, _ = run(
        "certify", folder / "coffee.png", "--metric", metric, "--samples", 40, "--attack", "4/255", "--adaptive",
        "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "undefended" in stdout
    assert "the defence" in stdout
    _, attacks = parted(Store(out).read())
    assert [attack.adaptive for attack in attacks] == [False, True]
    assert {(attack.budget, attack.norm) for attack in attacks} == {(4, "linf")}
    few = ("certify", folder, "--metric", metric, "--samples", 40, "--attack", 0.02, "--norm", "l2", "--out", out)
    assert "l2 0.02" in run(*few)[1]
    one = ("certify", folder, "--metric", metric, "--out", out)
    assert "--adaptive" in fails(5, *one, "--adaptive")
    assert "--attack" in fails(5, *one, "--attack", "much")
    assert "l2 radius" in fails(5, *one, "--attack", "much", "--norm", "l2")
    assert "--norm" in fails(5, *one, "--attack", "2/255", "--norm", "l1")


# --- the page


@pytest.fixture(scope="module")
def page(metric, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    for index, name in enumerate(NAMES):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:148, 100 : 148 + 8 * index])
    write_png(folder / "photos" / "<img src=x onerror=alert(1)>.png", sample_image("astronaut")[:, :40, :40])
    kinds = (ScoreAttack(epsilon=4 / 255, steps=2), ScoreAttack(epsilon=0.02, norm="l2", adaptive=True, draws=2))
    run_study(plan(metric, folder / "photos", attacks=kinds), folder / "out")
    (folder / "photos" / "rocket.png").unlink()
    return write_page([folder / "out"], folder / "out" / "report.html")


def column(watched, number, table="table-0"):
    return [
        text.strip() for text in watched.page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()
    ]


@pytest.mark.browser
def test_the_page_sorts_and_shows_every_case(page, browser):
    watched = Watched(browser, page, ready="#certified-intervals svg.main-svg")
    try:
        scores, attacks = parted(Store(page.parent).read())
        by_score = [Path(score.image).name for score in sorted(scores, key=lambda score: score.score)]
        assert sorted(column(watched, 1)) == sorted(by_score)
        watched.page.locator("#table-0 th:nth-child(3) button").click()
        watched.page.locator("#table-0 th:nth-child(3) button").click()
        assert column(watched, 1) == by_score
        assert len(column(watched, 1, "table-1")) == len(attacks) == 8
        # The picture of rocket.png is gone, and so is its case; its figures are not.
        cases = watched.page.locator("#pick-case option").all_text_contents()
        assert len(cases) == 3
        assert not any("rocket" in case for case in cases)
        seen = set()
        for index in range(len(cases)):
            watched.page.locator("#pick-case").select_option(index=index)
            facts = watched.page.locator("#facts").inner_text()
            assert "99.9 %" in facts
            assert "undefended score" in facts
            seen.add(facts)
        assert len(seen) == 3
        assert watched.page.locator("#pick-right option").count() == 5
        watched.page.wait_for_function(
            "() => [...document.images].every(image => image.complete && image.naturalWidth)"
        )
        for width, scheme in ((1280, "light"), (390, "dark")):
            watched.page.set_viewport_size({"width": width, "height": 900})
            watched.page.emulate_media(color_scheme=scheme)
            # Charts follow a moment later.
            watched.page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
            boxes = [watched.page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
            assert boxes[0]["width"] == boxes[1]["width"] > 100
            assert watched.page.locator("#certified-widths svg.main-svg").first.is_visible()
        assert watched.trouble == []
        assert watched.requests == [page.as_uri()]
    finally:
        watched.context.close()


def test_names_are_escaped(page):
    text = page.read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror" in text
