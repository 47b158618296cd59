"""Audits: the p-value, its rate of false alarms, what is flagged and what is said, the study and the command."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_cli import fails, run
from watched import Watched

from resolute import ConfigError, Grid, ImageError, as_scorer
from resolute import run as run_study
from resolute.attacks.gradient import PGD
from resolute.attacks.objective import ScoreGain
from resolute.attacks.registry import AttackTable
from resolute.attacks.score import ScoreAttack
from resolute.certificates.evasion import Unflagged
from resolute.certificates.gap import Calibration, Screening, audit, calibrate, least_photographs
from resolute.defences.purify import purifier
from resolute.engine.query import query
from resolute.errors import ImageWarning
from resolute.images import read_image, sample_image, write_png
from resolute.models.fitted import resized
from resolute.models.scorers import load_scorer
from resolute.report.page import write_markdown, write_page
from resolute.report.reading import read_folder
from resolute.studies.audit import SHIPPED, Audit, calibration_of
from resolute.studies.audit_results import results_of, words_of
from resolute.studies.gate import parse_gate, pass_gates

CLI = ["--metric", "quality-s", "--defence", "blur-3", "--rate", "0.1"]


BLUR = Screening("blur-3")


def calibration(*sources, screening=BLUR):
    gaps = {f"source {number}": tuple(map(float, own)) for number, own in enumerate(sources)}
    return Calibration(metric="m", fingerprint="f", screening=screening, smallest=32, gaps=gaps)


@pytest.fixture(scope="module")
def metric():
    return load_scorer("quality-s")


@pytest.fixture(scope="module")
def crops():
    """Honest photographs: 12 crops."""
    return [
        sample_image(name)[:, y : y + 64, x : x + 64]
        for name in ("coffee", "chelsea", "rocket")
        for y in (20, 120)
        for x in (30, 150)
    ]


@pytest.fixture(scope="module")
def honest(metric, crops):
    return calibrate(metric, crops[:9], "crops", Screening("blur-3"))


@pytest.fixture
def folder(tmp_path, crops, metric, honest):
    """Submissions, of which one is gamed, their originals, and the calibration."""
    original = crops[10]
    gamed = ScoreAttack(epsilon=2 / 255)(metric, original)["transferred"]
    for name, image in (("fair", crops[9]), ("gamed", gamed)):
        write_png(tmp_path / "sent" / f"{name}.png", image)
    for name, image in (("fair", crops[9]), ("gamed", original)):
        write_png(tmp_path / "originals" / f"{name}.png", image)
    honest.write(tmp_path / "honest.json")
    return tmp_path


def plan(folder, **changes):
    kept = {"images": (str(folder / "sent"),), "calibration": str(folder / "honest.json"), "rate": 0.1}
    return Audit(**{"metric": "quality-s", "defence": "blur-3", **kept, **changes})


# --- the p-value


def test_the_p_value_counts_itself_and_ties():
    made = calibration([1.0, 2.0, 2.0, 3.0])
    assert [made.p_value(gap) for gap in (0, 2, 2.5, 9, math.inf)] == [1.0, 0.8, 0.4, 0.2, 0.2]


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.1, 1 / 3])
def test_the_threshold_flags_what_has_a_p_value_of_at_most_the_rate(rate):
    rng = np.random.default_rng(0)
    made = calibration(rng.integers(0, 60, 150).astype(float))
    for gap in np.arange(-1, 62, 0.5).tolist():
        assert (gap > made.threshold(rate)) == (made.p_value(gap) <= rate + 1e-12)


def test_of_exchangeable_photographs_no_more_are_flagged_than_the_rate():
    rng = np.random.default_rng(0)
    flagged = [rng.standard_cauchy() > calibration(rng.standard_cauchy(119)).threshold(0.05) for _ in range(4000)]
    # 6 of 120 places: exactly 5 %; four standard deviations of 4,000 draws.
    assert abs(np.mean(flagged) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_of_several_sources_none_has_more_flagged_than_the_rate():
    """A mixture of them flags more of the sharpest one: its gaps are the largest everywhere."""
    rng, mixed, apart = np.random.default_rng(0), [], []
    for _ in range(2000):
        soft, sharp = rng.normal(0, 1, 99), rng.normal(3, 2, 99)
        mixed.append(rng.normal(3, 2) > calibration([*soft, *sharp]).threshold(0.05))
        apart.append(rng.normal(3, 2) > calibration(soft, sharp).threshold(0.05))
    # 5 of 100 places of its own source; 10 of 199 of the mixture, nearly all of that source.
    assert abs(np.mean(apart) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(mixed) > 0.08


def test_the_p_value_is_that_of_the_source_that_says_most_for_an_image():
    made = calibration([1, 2, 3], [4, 5, 6, 7, 8, 9, 10])
    assert [made.p_value(gap) for gap in (0, 4, 7, 11)] == [1.0, 1.0, 5 / 8, 0.25]
    assert [made.nearest(gap) for gap in (4, 11)] == ["source 1", "source 0"]
    assert [made.at_least(gap) for gap in (4, 11)] == [7, 0]
    for gap in np.arange(0, 12, 0.5).tolist():
        assert (gap > made.threshold(0.25)) == (made.p_value(gap) <= 0.25)
    with pytest.raises(ConfigError, match="source 0 has 3"):
        made.threshold(0.2)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.03, 0.05, 0.1, 0.5])
def test_a_calibration_too_small_for_the_rate_says_how_many_it_takes(rate):
    needed = least_photographs(rate)
    made = calibration(np.arange(needed, dtype=float))
    assert made.p_value(math.inf) <= rate
    assert made.threshold(rate) == needed - 1
    with pytest.raises(ConfigError, match=f"takes {needed} "):
        calibration(np.arange(needed - 1, dtype=float)).threshold(rate)
    assert calibration(np.arange(needed - 1, dtype=float)).p_value(math.inf) > rate


def test_equal_gaps_stay_equal_in_a_file(tmp_path):
    """A third has more digits than a file holds."""
    coarse = as_scorer(lambda x: (x.mean(dim=(1, 2, 3)) > 0).float() * (2 if x.shape[-1] > 16 else 1) / 3, "coarse")
    photos = torch.rand(20, 3, 32, 32)
    calibrate(coarse, photos[1:], "noise", Screening("size-0.5", 0)).write(tmp_path / "one.json")
    assert audit(coarse, photos[0], Calibration.read(tmp_path / "one.json"), rate=0.05).p == 1


def test_a_calibration_comes_back_from_its_file(tmp_path):
    made = calibration([1.5, math.inf, -2.0], [0.25], screening=Screening("noise-0.1", 64, 8))
    made.write(tmp_path / "one.json")
    assert Calibration.read(tmp_path / "one.json") == made
    empty = json.dumps(dataclasses.asdict(made) | {"gaps": {}})
    for text in ("{", "[1]", '{"gaps": 3}', json.dumps({"gaps": {"a": ["x"]}}), '{"gaps": {"a": 1}}', "\x00", empty):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ConfigError, match=r"other\.json is no calibration"):
            Calibration.read(tmp_path / "other.json")


# --- scores


def test_both_scores_are_those_of_the_metric(metric, crops):
    image = crops[0]
    gap = Screening("jpeg-50", 0)(metric, image)
    with torch.no_grad():
        assert gap.undefended == pytest.approx(float(metric(image[None])), abs=1e-4)
        assert gap.defended == pytest.approx(float(metric(purifier("jpeg-50")(image[None]))), abs=1e-4)
    small = Screening("blur-3", 40)(metric, image)
    assert small.undefended != pytest.approx(gap.undefended, abs=0.01)


def test_several_defences_are_averaged(metric, crops):
    image = crops[0]
    both, jpeg, size = (Screening(f, 48)(metric, image).defended for f in ("jpeg-75+size-0.75", "jpeg-75", "size-0.75"))
    assert both == pytest.approx((jpeg + size) / 2, abs=1e-3)
    with torch.no_grad():
        assert size == pytest.approx(float(metric(resized(image[None], (36, 36)))), abs=1e-3)
    # Of a smaller image, the share is of its own size.
    assert Screening("size-0.75", 200)(metric, image).defended == Screening("size-0.75", 0)(metric, image).defended


def test_an_attacker_who_knows_of_the_audit_keeps_the_gap_small(metric, crops, honest):
    threshold = honest.threshold(0.1)
    for original in crops[9:11]:
        blind, evading = (
            PGD(epsilon=4 / 255, steps=12, relative_step=0.25, start="tiny", objective=goal)(
                metric, original[None]
            ).images[0]
            for goal in (ScoreGain(), Unflagged(BLUR, threshold))
        )
        before, blind, evading = (BLUR(metric, image) for image in (original, blind, evading))
        assert blind.value > threshold
        assert evading.value < blind.value
        assert before.undefended < evading.undefended < blind.undefended


def test_noise_is_drawn_anew_unless_a_seed_says_otherwise(metric, crops):
    screening = Screening("noise-0.1", 48, 5)
    first, other = (screening(metric, crops[0]) for _ in range(2))
    assert first.seed != other.seed
    assert screening(metric, crops[0], seed=first.seed) == first


@pytest.mark.parametrize("wrong", ["noise-", "noise-0", "noise-x", "jpeg-0", "fog", "size-1.2", "jpeg-75+size-", ""])
def test_a_wrong_defence_is_refused(wrong):
    with pytest.raises(ConfigError):
        Screening(wrong)


def test_fingerprints_tell_metrics_and_screenings_apart(metric, honest, crops):
    other = load_scorer("quality-m")
    screenings = [Screening("blur-3"), Screening("blur-5"), Screening("blur-3", 100)]
    assert len({s.fingerprint(m) for s in screenings for m in (metric, other)}) == 6
    # Noisy copies count where there is noise.
    assert Screening("blur-3", samples=5).fingerprint(metric) == Screening("blur-3").fingerprint(metric)
    with pytest.raises(ConfigError, match="quality-s with other weights"):
        audit(other, crops[0], honest, rate=0.1)


def test_a_score_that_is_not_finite_is_the_worst_there_is():
    broken = as_scorer(lambda x: torch.where(x.mean(dim=(1, 2, 3)) > 0.5, torch.nan, 0.0), name="broken")
    made = calibrate(broken, torch.zeros(9, 3, 16, 16), "black", Screening("blur-3"))
    found = audit(broken, torch.ones(3, 16, 16), made, rate=0.1)
    assert found.flagged
    assert found.gap.value == math.inf
    assert not audit(broken, torch.zeros(3, 16, 16), made, rate=0.1).flagged


# --- findings


def test_what_is_gamed_is_flagged_and_what_is_not_is_not(metric, crops, honest):
    for original in crops[9:]:
        gamed = ScoreAttack(epsilon=4 / 255)(metric, original)["transferred"]
        found = audit(metric, gamed, honest, original, rate=0.1)
        assert found.flagged
        assert found.p == 0.1
        assert found.gain.unseen
        assert found.gain.undefended > found.gain.defended
        fair = audit(metric, original, honest, original, rate=0.1)
        assert fair.gain.undefended == fair.gain.defended == 0
        assert fair.gain.psnr == math.inf
        assert not fair.gain.unseen
    assert sum(audit(metric, original, honest, rate=0.1).flagged for original in crops[9:]) <= 1


def test_a_metric_that_falls_with_quality_is_audited_the_other_way_round(metric, crops, honest):
    class Mirror(torch.nn.Module):
        def forward(self, x):
            return -metric(x)

    mirrored = as_scorer(Mirror(), name="mirror", lower_better=True)
    made = calibrate(mirrored, crops[:9], "crops", Screening("blur-3"))
    assert made.gaps["crops"] == pytest.approx(honest.gaps["crops"], abs=1e-3)
    gamed = ScoreAttack(epsilon=4 / 255)(mirrored, crops[9])["transferred"]
    found = audit(mirrored, gamed, made, crops[9], rate=0.1)
    assert found.flagged
    assert found.gain.undefended > 0


def test_an_image_smaller_than_all_honest_photographs_is_not_flagged(metric, crops):
    """Pictures so small lose more by the defence, and nothing is known of how much more."""
    made = calibrate(metric, crops[:9], "crops", BLUR)
    assert made.smallest == 64
    gamed = ScoreAttack(epsilon=4 / 255)(metric, crops[9])["transferred"]
    assert audit(metric, gamed, made, rate=0.1).flagged
    small = audit(metric, gamed[:, :63, :63], made, rate=0.1)
    assert small.gap.value > small.threshold
    assert small.unlike
    assert not small.flagged


def test_a_gain_that_is_seen_is_no_unseen_gain(metric, crops, honest):
    found = audit(metric, crops[9], honest, crops[9].flip(-1) * 0.5, rate=0.1)
    assert found.gain.psnr < 36
    assert not found.gain.unseen


# --- the study


def test_records_are_findings(folder, metric, honest):
    records = {
        Path(r.image).stem: r for r in run_study(plan(folder, references=(str(folder / "originals"),)), folder / "out")
    }
    for name, record in records.items():
        image, original = (read_image(folder / where / f"{name}.png") for where in ("sent", "originals"))
        found = audit(metric, image, honest, original, rate=0.1)
        assert (record.undefended, record.defended) == (found.gap.undefended, found.gap.defended)
        assert (record.p, record.flagged, record.unseen) == (found.p, found.flagged, found.gain.unseen)
        assert record.psnr == (None if found.gain.psnr == math.inf else found.gain.psnr)
        assert record.calibrated == 9
        assert (record.photographs, record.source) == ("9 of crops", "crops")
    assert records["gamed"].flagged
    assert not records["fair"].flagged


def test_the_page_shows_the_flagged_one_first(folder):
    study = plan(folder, references=(str(folder / "originals"),))
    records = run_study(study, folder / "out")
    results = study.results(records)
    assert "gamed.png" in results.alarm
    assert [line["image"] for line in results.tables[0].records()] == ["gamed.png", "fair.png"]
    cases = list(study.cases(records, folder))
    assert cases[0].title == "gamed.png: flagged"
    assert [view.label for view in cases[0].views][:2] == ["submission", "reference"]
    # What nobody sees is magnified.
    assert float(cases[0].views[2].pixels.max()) == pytest.approx(32 / 255, abs=0.001)
    page = write_page([folder / "out"], folder / "report.html").read_text()
    assert results.alarm in page
    text = write_markdown([folder / "out"], folder / "tables.md").read_text()
    assert "| **gamed.png** |" in text
    answer = query("SELECT image FROM audits WHERE flagged", [folder / "out"])
    assert [Path(row[0]).name for row in answer.rows] == ["gamed.png"]


def test_what_equals_its_reference_is_flagged_and_raises_no_alarm(folder):
    study = plan(folder, references=(str(folder / "originals"),))
    records = run_study(study, folder / "out")
    equal = [dataclasses.replace(r, psnr=None, ssim=1.0, gain=0.0, unseen=False) for r in records]
    results = study.results(equal)
    assert results.alarm == ""
    assert any("1 of these is its reference" in sentence for sentence in results.sentences)
    (flagged,) = (line["finding"] for line in results.tables[0].records() if line["image"] == "gamed.png")
    assert flagged == "flagged, but its reference"


def test_no_gate_is_passed_by_a_score_that_is_not_finite(folder):
    study = plan(folder)
    records = run_study(study, folder / "out")
    broken = [dataclasses.replace(records[0], gap=None, undefended=None), *records[1:]]
    for text in ("gap=1000", "score=0"):
        passed = [pass_gates(study, own, [parse_gate(text)])[0].passed for own in (records, broken)]
        assert passed == [True, False]


def test_no_picture_of_other_pixels_is_shown(folder):
    study = plan(folder)
    records = run_study(study, folder / "out")
    shutil.copy(folder / "originals" / "gamed.png", folder / "sent" / "gamed.png")
    assert [case.title for case in study.cases(records, folder)] == ["fair.png"]


def test_words_name_scores_calibration_and_reference(folder):
    records = run_study(plan(folder, references=(str(folder / "originals"),)), folder / "out")
    gamed = next(record for record in records if record.flagged)
    told = " ".join(words_of(gamed))
    for figure in (f"{gamed.undefended:.2f}", f"{gamed.defended:.2f}", "p = 0.1,", "9 honest", f"{gamed.psnr:.1f} dB"):
        assert figure in told
    assert "without visible improvement" in told
    fair = " ".join(words_of(next(record for record in records if not record.flagged)))
    assert "not flagged" in fair
    assert "equal" in fair


def test_what_is_wrong_with_one_is_said_and_the_others_are_done(folder):
    (folder / "sent" / "broken.png").write_bytes(b"no image")
    write_png(folder / "sent" / "small.png", torch.zeros(3, 8, 64))
    write_png(folder / "sent" / "lonely.png", torch.full((3, 64, 64), 0.5))
    write_png(folder / "originals" / "fair.png", torch.zeros(3, 64, 60))
    for name in ("broken", "small"):
        write_png(folder / "originals" / f"{name}.png", torch.zeros(3, 8, 64))
    with pytest.warns(ImageWarning, match="without a reference"):
        records = run_study(plan(folder, references=(str(folder / "originals"),)), folder / "out")
    assert [Path(record.image).stem for record in records] == ["gamed", "lonely"]
    assert records[1].p is not None
    assert not records[1].reference
    assert any("1 submission has no reference" in sentence for sentence in results_of(records).sentences)
    (note,) = read_folder(folder / "out").notes
    assert note.startswith("3 of 5 cells")
    failed = [json.loads(line) for line in (folder / "out" / "failed.jsonl").read_text().splitlines()]
    reasons = {Path(line["title"]).stem: line["reason"] for line in failed}
    assert reasons.keys() == {"broken", "small", "fair"}
    for name, word in (
        ("broken", "cannot read"),
        ("small", "32 pixels"),
        ("fair", "60 x 64"),
    ):
        assert word in reasons[name]
        assert name in reasons[name]
    # Mended, the same run does the rest.
    shutil.copy(folder / "sent" / "fair.png", folder / "originals" / "fair.png")
    with pytest.warns(ImageWarning, match="without a reference"):
        records = run_study(plan(folder, references=(str(folder / "originals"),)), folder / "out")
    assert [Path(record.image).stem for record in records] == ["fair", "gamed", "lonely"]


def test_where_no_image_can_be_read_nothing_is_planned(folder):
    (folder / "sent" / "fair.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"cannot read .*fair\.png"):
        plan(folder, images=(str(folder / "sent" / "fair.png"),)).cells()


def test_one_file_is_the_reference_of_all(folder):
    records = run_study(plan(folder, references=(str(folder / "originals" / "gamed.png"),)), folder / "out")
    assert {Path(record.reference).name for record in records} == {"gamed.png"}
    (folder / "more").mkdir()
    shutil.copy(folder / "originals" / "gamed.png", folder / "more")
    with pytest.raises(ImageError, match="two references are called gamed"):
        plan(folder, references=(str(folder / "originals"), str(folder / "more"))).cells()


def test_another_calibration_or_rate_is_another_question(folder, metric, crops):
    calibrate(metric, crops[1:], "others", Screening("blur-3")).write(folder / "other.json")
    keys = [
        {cell.key for cell in plan(folder, **change).cells()}
        for change in ({}, {"rate": 0.2}, {"calibration": str(folder / "other.json")})
    ]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]


def test_a_calibration_made_here_is_taken_before_one_that_is_shipped(folder, honest, monkeypatch):
    monkeypatch.chdir(folder)
    for where, name in (("runs/calibrations", "here"), ("shipped", "there")):
        dataclasses.replace(honest, gaps={name: honest.gaps["crops"]}).write(folder / where / "one.json")
    monkeypatch.setattr("resolute.studies.audit.SHIPPED", folder / "shipped")
    assert {cell.calibration.photographs for cell in plan(folder, calibration="").cells()} == {"9 of here"}
    shutil.rmtree(folder / "runs")
    assert {cell.calibration.photographs for cell in plan(folder, calibration="").cells()} == {"9 of there"}


def test_photographs_that_are_there_twice_calibrate_once(folder, crops):
    for number, image in enumerate((*crops[:4], crops[0])):
        write_png(folder / "honest" / f"{number}.png", image)
    study = plan(folder, images=(str(folder / "honest"),), calibration="", honest=True)
    records = run_study(study, folder / "cal")
    with pytest.warns(UserWarning, match="1 photograph left out"):
        made = calibration_of(study, {"crops": records[:3], "others": records[3:]})
    assert [len(own) for own in made.gaps.values()] == [3, 1]
    assert made.smallest == 64
    assert results_of(records).alarm == ""
    assert "4" not in results_of(records).sentences[0].split()[0]


# --- the command


def test_the_command_calibrates_audits_and_exits_with_12(folder, crops, monkeypatch):
    monkeypatch.chdir(folder)
    for number, image in enumerate(crops[:9]):
        write_png(folder / "honest" / f"{number}.png", image)
    assert "no calibration" in fails(5, "audit", "sent", *CLI)
    assert "takes 99 honest photographs, and honest has 9" in fails(5, "audit", "--calibrate", "honest")
    code, told, _ = run("audit", "--calibrate", "honest", *CLI)
    assert code == 0
    assert "9 honest photographs" in told
    # Once made, it is found again.
    code, told, stderr = run("audit", "sent", "--reference", "originals", *CLI)
    assert code == 12
    assert "report.html" in told
    assert "gamed.png" in stderr
    monkeypatch.setattr("resolute.cli.studying.FEW", 0)
    code, told, _ = run("audit", "originals/fair.png", *CLI, "--out", "other")
    assert code == 0
    assert re.match(r"audit: 1 submission, about \d+ s on 1 worker", told)
    assert "19" in fails(5, "audit", "sent", *CLI[:-1], "0.05")
    assert "name the images" in fails(5, "audit", *CLI)
    assert "no calibration" in fails(5, "audit", "sent", *CLI, "--calibration", "originals/fair.png")
    shutil.copytree("honest", "more/honest")
    twice = ("audit", "--calibrate", "honest", "--calibrate")
    assert "same name" in fails(5, *twice, "more/honest", *CLI)
    for number, image in enumerate(crops[:9]):
        write_png(folder / "others" / f"{number}.png", image.flip(-1))
    assert run(*twice, "others", *CLI, "--calibration", "both.json")[0] == 0
    found = Calibration.read(Path("both.json"))
    assert {name: len(own) for name, own in found.gaps.items()} == {"honest": 9, "others": 9}
    assert found.smallest == 64


def test_a_metric_is_called_what_its_file_says(folder, crops, monkeypatch):
    monkeypatch.chdir(folder)
    with safe_open(SHIPPED.parent / "weights" / "quality-s.safetensors", "pt") as file:
        state, told = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118, no mapping
    save_file(state, "odd.safetensors", told | {"card": json.dumps(json.loads(told["card"]) | {"name": "q[/b]"})})
    for number, image in enumerate(crops[:9]):
        write_png(folder / "honest" / f"{number}.png", image)
    assert "score of q[/b]" in run("audit", "--calibrate", "honest", "--metric", "odd.safetensors", *CLI[2:])[1]


def test_shipped_calibrations_suffice_and_are_small():
    files = list(SHIPPED.glob("*.json"))
    assert files
    for path in files:
        assert min(map(len, Calibration.read(path).gaps.values())) >= least_photographs(0.01)
        assert path.stat().st_size < 20_000


# --- the demonstration


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """What the demonstration says, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    small = Grid(name="demo", models=("bicubic",), attacks=(AttackTable(kind="fgsm"),), epsilons=(4,), crop=32, every=5)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("resolute.cli.attacking.read_study", lambda _: small)
        for name, value in {"SAMPLE_NAMES": ("chelsea", "coffee"), "GAMED": ("coffee",), "STEPS": 2}.items():
            changed.setattr(f"resolute.studies.demonstration.{name}", value)
        code, stdout, _ = run("demo", "--out", folder)
        assert code == 0
        written = (folder / "scores" / "records.jsonl").read_text()
        assert run("demo", "--out", folder)[0] == 0
    assert (folder / "scores" / "records.jsonl").read_text() == written
    return stdout, folder


def test_the_demonstration_catches_what_was_gamed_and_shows_all_on_one_page(demonstrated, tmp_path):
    stdout, folder = demonstrated
    assert "looks gamed: coffee.png" in stdout
    page = (folder / "report.html").read_text()
    assert page.index("looks gamed: coffee.png") < page.index('id="pictures"') < page.index('id="figures"')
    text = write_markdown([folder, folder / "scores"], tmp_path / "x.md").read_text()
    assert "| bicubic | FGSM | 4/255 |" in text
    assert "| **coffee.png** |" in text


@pytest.mark.browser
def test_cases_of_all_kinds_can_be_chosen(demonstrated, browser):
    watched = Watched(browser, demonstrated[1] / "report.html", ready="#pick-case option")
    try:
        titles = watched.page.locator("#pick-case option").all_inner_texts()
        assert ["FGSM 4/255" in title for title in titles] == [True, False, False]
        assert "coffee.png: flagged" in titles[1]
        assert watched.page.locator("#pick-budget").is_visible()
        watched.page.locator("#pick-case").select_option(index=1)
        assert "coffee.png: flagged" in watched.page.locator("#shown").inner_text()
        assert not watched.page.locator("#pick-budget").is_visible()
        assert watched.trouble == []
    finally:
        watched.context.close()
