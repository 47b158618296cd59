"""Flags of records, and how they and those of checks come onto the page of a grid."""

import dataclasses
import hashlib
import re
import shutil

import pytest
from small import edit, rewrite

from resolute.engine.store import Store
from resolute.report.page import CHECK, write_markdown, write_page
from resolute.studies.check import Check, CheckRecord
from resolute.studies.flags import RULES
from resolute.studies.record_flags import record_flags

IFGSM = "IFGSM(epsilon=0.1, steps=5)"


@pytest.fixture
def record(finished):
    return next(record for record in Store(finished).read() if record.model == "tiny")


def cell(record, attack, level, value, configuration=IFGSM, unrounded=None, image="coffee"):
    key = hashlib.sha256(f"{attack}{level}{image}".encode()).hexdigest()
    return dataclasses.replace(
        record, attack=attack, epsilon=level / 255, sr_psnr=value, configuration=configuration, image=image,
        sr_psnr_unrounded=value if unrounded is None else unrounded, key=key,
    )  # fmt: skip


def raised(*records):
    return {flag.name: flag for flag in record_flags(records)}


def test_a_sound_study_raises_nothing(record):
    assert (
        raised(cell(record, "ifgsm", 4, 30), cell(record, "ifgsm", 8, 25), cell(record, "noise", 4, 40, "RandomNoise("))
        == {}
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("RandomNoise", "noise-stronger-than-gradient"),
        ("Square", "black-box-stronger"),
        ("Transfer", "transfer-stronger-than-white-box"),
        ("FGSM", "single-step-stronger"),
    ],
)
def test_an_attack_that_knows_less_and_reaches_more_is_flagged(record, kind, name):
    found = raised(cell(record, "ifgsm", 4, 30), cell(record, "other", 4, 29, f"{kind}(epsilon=0.1)"))
    assert list(found) == [name]
    assert found[name].figure == pytest.approx(1)
    assert "29.00 dB" in found[name].words


def test_rivals_are_compared_on_the_images_that_both_have(record):
    records = [
        cell(record, "ifgsm", 4, 30),
        cell(record, "square", 4, 35, "Square("),
        cell(record, "square", 4, 10, "Square(", image="only here"),
    ]
    assert raised(*records) == {}


def test_the_worst_setting_of_a_flag_is_told(record):
    found = raised(*(cell(record, "ifgsm", level, value) for level, value in ((1, 30), (2, 30), (4, 31), (8, 20))))
    assert found["larger-budget-not-stronger"].figure == pytest.approx(-1)
    assert re.search(r"30\.00 .*2/255 .*31\.00 .*4/255", found["larger-budget-not-stronger"].words)


def test_rounding_that_undoes_an_attack_is_flagged(record):
    assert list(raised(cell(record, "ifgsm", 1, 40, unrounded=38))) == ["rounding-sensitive"]


def unmoved(record, **changes):
    return dataclasses.replace(record, sr_psnr=None, **changes)


def test_an_output_that_did_not_move_is_no_trouble(record):
    still = unmoved(cell(record, "ifgsm", 4, 30), sr_psnr_unrounded=None)
    assert raised(still, cell(record, "ifgsm", 8, 30)) == {}


def test_an_image_that_rounding_gives_back_is_counted_and_in_no_mean(record):
    records = [
        cell(record, "ifgsm", 1, 30.7, unrounded=30.6),
        unmoved(cell(record, "ifgsm", 1, 29, image="chelsea")),
    ]
    flag = raised(*records)["rounding-sensitive"]
    # 100 dB for an infinite figure would make this a gap of 36 dB, which nobody measured.
    assert flag.figure == pytest.approx(0.1)
    assert re.search(r"30\.60 .*30\.70 .*1 of 2 ", flag.words)
    assert raised(unmoved(cell(record, "ifgsm", 1, 29)))["rounding-sensitive"].figure is None


def test_what_only_the_weaker_attack_moves_is_flagged(record):
    still = unmoved(cell(record, "ifgsm", 4, 30), sr_psnr_unrounded=None)
    assert list(raised(still, cell(record, "noise", 4, 40, "RandomNoise("))) == ["noise-stronger-than-gradient"]
    later = unmoved(cell(record, "ifgsm", 8, 30), sr_psnr_unrounded=None)
    assert list(raised(cell(record, "ifgsm", 4, 30), later)) == ["larger-budget-not-stronger"]


def checks_of(weights, name="<i>x", **changed):
    """Records of a check on two images that raise no flag but for what is changed."""
    runs = {"half": 35, "climb": 29, "double": 23, "twice": 28.95, "whole": 5, "single": 32, "noise": 34, "square": 33}
    return [
        CheckRecord(
            key=hashlib.sha256(f"{weights}{image}".encode()).hexdigest(), model=name, weights=weights, image=image,
            pixels="", width=8, height=8, seed=0, seconds=1.0, epsilon=4 / 255, steps=10,
            runs={run: float(value) for run, value in runs.items()}, unrounded=28.9, restarts=(29.2, 29.0),
            transfers={}, random_images=7.0, jump=0.0, **{"flat": 0.0, "error": 3.0, "saturated": 0.0} | changed,
        )
        for image in ("a", "b")
    ]  # fmt: skip


def rows_of(run, out):
    """The rows of all tables of the Markdown, and the page."""
    text = write_markdown([run], out / "tables.md").read_text()
    rows = [[cell.strip(" *") for cell in line.strip("|").split(" | ")] for line in text.splitlines() if "|" in line]
    return rows, write_page([run], out / "report.html").read_text()


def test_the_page_has_the_checks_below_the_folder(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    study = Check(models=("tiny.safetensors", "other.pt"))
    facts = {"kind": "check", "study": dataclasses.asdict(study)}
    (run / CHECK).mkdir()
    Store(run / CHECK).write_facts(facts)
    weights = {record.model: record.weights for record in Store(run).read()}
    rewrite(run / CHECK, checks_of(weights["tiny"], flat=50.0))
    with (run / CHECK / "records.jsonl").open("a") as file:
        file.write('{"model": 1}\n')
    rows, page = rows_of(run, tmp_path)
    assert ["zero-gradients", "yes", "50.00"] in [row[:3] for row in rows]
    assert ["zero-gradients", "yes", "0.00"] not in [row[:3] for row in rows]
    assert RULES["zero-gradients"].remedy in page
    assert "&lt;i&gt;x" in page
    assert "<i>x" not in page


def test_a_damaged_check_does_not_spoil_the_page(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / CHECK).mkdir()
    (run / CHECK / "records.jsonl").write_text('{"model": 1}\n')
    rows, _ = rows_of(run, tmp_path)
    assert all(row[0] != "zero-gradients" for row in rows)


def test_flags_of_records_are_on_the_page(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    edit(run, lambda r: dataclasses.replace(r, sr_psnr_unrounded=r.sr_psnr - 3) if r.model == "tiny" else r)
    rows, page = rows_of(run, tmp_path)
    assert ["tiny", "rounding-sensitive", "3.00 dB"] in [row[:3] for row in rows]
    assert "rounding-sensitive" in page
