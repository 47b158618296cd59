import dataclasses
import json
import math
import re

import pytest
import torch

from resolute import ConfigError, Grid, ImageError, load, psnr_rgb, read_study, run, summarize
from resolute.attacks.registry import AttackTable
from resolute.errors import OutputError
from resolute.figures import MINUS
from resolute.images import read_image, sample_image, write_png
from resolute.studies.attacked import AttackRecord
from resolute.studies.datasets import find_photos
from resolute.studies.record import PROTOCOL, record_key
from resolute.studies.summary import bicubic_line, compare, level_of, standings, worst_case
from resolute.studies.verdicts import verdict


@pytest.fixture
def study(photos, tiny_model):
    return Grid(
        name="small",
        models=(str(tiny_model), "bicubic"),
        attacks=(AttackTable(kind="ifgsm", steps=3), AttackTable(kind="pgd", steps=2, label="PGD-2")),
        epsilons=(2, 8),
        images=(str(photos),),
    )


def untimed(records):
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def test_a_study_measures_every_cell_on_the_saved_file(study, tmp_path):
    out = tmp_path / "out"
    records = run(study, out)
    assert len(records) == 2 * 2 * 2 * 2
    assert len({record.key for record in records}) == len(records)
    record = records[0]
    assert (record.image, record.width, record.height) == ("astronaut", 12, 16)
    model = load(study.models[0])
    low = study.subjects()[0].low
    saved = read_image(out / record.files[0])[None]
    with torch.no_grad():
        assert record.sr_psnr == pytest.approx(psnr_rgb(model(low), model(saved)).item())
    assert record.lr_psnr == pytest.approx(psnr_rgb(low, saved).item())
    assert record.linf <= 2
    facts = json.loads((out / "study.json").read_text())
    assert facts["study"]["name"] == "small"
    assert {"command", "date", "versions", "hardware"} <= facts["provenance"].keys()


def test_a_rerun_computes_nothing_twice_and_gives_the_same_records(study, tmp_path):
    first = run(study, tmp_path / "out")
    lines = (tmp_path / "out" / "records.jsonl").read_text()
    assert run(study, tmp_path / "out") == first
    assert (tmp_path / "out" / "records.jsonl").read_text() == lines


def test_the_key_holds_all_that_determines_a_cell(study):
    def keys(changed):
        return {cell.key for cell in changed.cells()}

    assert keys(study) == keys(study)
    assert keys(study).isdisjoint(keys(dataclasses.replace(study, seed=1)))
    assert keys(study).isdisjoint(keys(dataclasses.replace(study, epsilons=(3,))))
    assert keys(study).isdisjoint(keys(dataclasses.replace(study, crop=40)))
    longer = (AttackTable(kind="ifgsm", steps=4),)
    assert keys(study).isdisjoint(keys(dataclasses.replace(study, attacks=longer)))
    assert record_key("a") != record_key("b")
    assert isinstance(PROTOCOL, int)


def test_low_resolution_images_have_no_ground_truth(study, tmp_path):
    records = run(dataclasses.replace(study, high_resolution=False, epsilons=(2,)), tmp_path)
    assert {(record.width, record.height) for record in records} == {(49, 64)}
    assert {record.clean_psnr_y for record in records} == {None}
    assert all(record.sr_psnr is not None for record in records)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5)])
def test_tiny_inputs_lose_only_the_figures_that_need_a_window(size, study, tmp_path):
    write_png(tmp_path / "one.png", sample_image("coffee")[:, : size[0], : size[1]])
    small = dataclasses.replace(study, images=(str(tmp_path / "one.png"),), high_resolution=False)
    for record in run(small, tmp_path / "out"):
        assert record.lr_psnr is not None
        assert record.sr_ssim is None or min(size) * 4 >= 19


def test_an_image_smaller_than_the_scale_is_named(study, tmp_path):
    write_png(tmp_path / "one.png", torch.zeros(3, 1, 1))
    with pytest.raises(ImageError, match=r"^one: .*1x1 .*scale 4"):
        run(dataclasses.replace(study, images=(str(tmp_path / "one.png"),)), tmp_path / "out")


def test_files_of_one_name_in_two_folders_stay_apart(study, photos, tmp_path):
    other = tmp_path / "other"
    write_png(other / "coffee.png", sample_image("rocket")[:, :40, :40])
    subjects = dataclasses.replace(study, images=(str(photos), str(other))).subjects()
    assert [subject.name for subject in subjects] == ["astronaut", "coffee", "coffee-2"]


def test_a_model_of_another_scale_is_refused(study):
    from resolute import CheckpointError

    with pytest.raises(CheckpointError, match="by 4, not by 2"):
        dataclasses.replace(study, scale=2).cells()


def test_an_unwritable_record_says_that_the_rest_is_kept(study, tmp_path):
    (tmp_path / "out" / "records.jsonl").mkdir(parents=True)
    with pytest.raises((OutputError, IsADirectoryError)):
        run(study, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nmodels = ["m"]\n', "attacks"),
        ('name = "x"\nmodels = []\n[[attacks]]\nkind = "fda"\n', "models"),
        ('name = "x"\nmodels = ["m"]\nepsilonz = [1]\n[[attacks]]\nkind = "fda"\n', "epsilonz"),
        ('name = "x"\nmodels = ["m"]\n[[attacks]]\nkind = "fda"\nsteps = 0\n', "attacks.0.steps"),
        ("name = [", "no valid TOML"),
    ],
)
def test_a_wrong_study_names_the_key(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_study(path)


def record(model, image, sr_psnr, *, attack="ifgsm", level=4.0, clean=27.0, attacked=26.0):
    return AttackRecord(
        key=record_key(model, image, attack, level), model=model, weights="", attack=attack, configuration="",
        epsilon=level / 255, image=image, pixels="", width=8, height=8, seed=0, clean_psnr_y=clean,
        clean_ssim_y=0.8, attacked_psnr_y=attacked, attacked_ssim_y=0.7, lr_psnr=37.0, sr_psnr=sr_psnr,
        sr_psnr_unrounded=sr_psnr, sr_psnr_y=sr_psnr, sr_ssim=0.9, linf=level, gradients=50, seconds=1.0,
        phi_mean=0.0, phi_std=1.0, phi_range=4.0, attacked_phi_mean=0.0, attacked_phi_std=1.0,
        attacked_phi_range=4.0, phi_moved=0.1,
    )  # fmt: skip


PAIR = [
    record("net", "a", 30.0), record("net", "b", 32.0),
    record("net-entropy", "a", 33.0, clean=26.8, attacked=26.5), record("net-entropy", "b", 35.0, clean=26.8),
]  # fmt: skip


def test_the_worst_case_takes_each_figure_from_the_attack_that_is_worst_for_it():
    records = [
        record("net", "a", 20.0, attack="apgd", attacked=19.0), record("net", "a", 21.0, attack="truth", attacked=18.0),
        record("net", "a", None, attack="noise", level=8.0, attacked=25.0),
    ]  # fmt: skip
    found = {level_of(one): (one.sr_psnr, one.attacked_psnr_y) for one in worst_case(records)}
    # What is found within 4/255 counts within 8/255 too.
    assert found == {4.0: (20.0, 18.0), 8.0: (20.0, 18.0)}


def test_several_seeds_of_an_image_are_one_image():
    later = [dataclasses.replace(one, seed=1, sr_psnr=one.sr_psnr + len(one.model)) for one in PAIR]
    rows = {row.model: row for row in summarize([*PAIR, *later])}
    assert (rows["net"].images, rows["net"].unmoved, rows["net"].sr_psnr) == (2, 0, 32.5)
    [found] = compare([*PAIR, *later], "net", "net-entropy")
    assert (found.sr.n, found.sr.mean) == (2, pytest.approx(rows["net-entropy"].sr_psnr - rows["net"].sr_psnr))
    [standing, _] = standings([*PAIR, *later])
    assert (standing.images, standing.sr.n) == (2, 2)


def test_summary_and_comparison_figures():
    rows = {row.model: row for row in summarize(PAIR)}
    assert rows["net"].sr_psnr == 31.0
    [found] = compare(PAIR, "net", "net-entropy")
    assert found.sr.mean == pytest.approx(3.0)
    assert found.clean.mean == pytest.approx(-0.2)
    assert found.truth.mean == pytest.approx(0.25)
    assert found.closed == pytest.approx(3.0 / (20 * math.log10(255 / 4) - 31.0))
    assert bicubic_line(1) == pytest.approx(48.13, abs=0.01)


def test_pairs_compare_only_images_that_both_models_went_through():
    [found] = compare([*PAIR, record("net-entropy", "c", 99.0)], "net", "net-entropy")
    assert found.sr.n == 2


def test_infinite_figures_are_counted_not_averaged():
    [row] = summarize([record("net", "a", None), record("net", "b", 30.0)])
    assert (row.unmoved, row.sr_psnr, row.images) == (1, 30.0, 2)


def test_the_worst_case_is_taken_image_by_image():
    records = [
        record("net", "a", 30.0), record("net", "b", 28.0),
        record("net", "a", 29.0, attack="fda"), record("net", "b", None, attack="fda"),
    ]  # fmt: skip
    assert {r.image: r.sr_psnr for r in worst_case(records)} == {"a": 29.0, "b": 28.0}
    [row] = summarize(worst_case(records))
    assert (row.attack, row.sr_psnr) == ("worst case", 28.5)


def test_the_verdict_says_where_the_gain_vanishes():
    gained = verdict(PAIR, "net", "net-entropy")
    assert re.search(r"34\.0 .*31\.0 .*\+3\.0 .*I-FGSM", gained)
    assert f"{MINUS}0.20 dB" in gained
    level = [dataclasses.replace(r, clean_psnr_y=27.0) for r in PAIR]
    assert "starts lower" not in verdict(level, "net", "net-entropy")
    nothing = [dataclasses.replace(r, attacked_psnr_y=26.0) for r in PAIR]
    assert "gains nothing" in verdict(nothing, "net", "net-entropy")
    assert "be compared" in verdict(PAIR, "net", "net-entropy", level=2)
    chance = [*PAIR[:2], record("net-entropy", "a", 33.0), record("net-entropy", "b", 31.0)]
    assert "chance" in verdict(chance, "net", "net-entropy")


def test_images_of_one_name_or_of_equal_pixels_are_images_of_their_own(tmp_path):
    paths = [tmp_path / name for name in ("d1/a.png", "d2/a.png", "d3/a-2.png", "d3/a-3.png", "d4/a.png")]
    for path in paths:
        write_png(path, sample_image("coffee")[:, :32, :32])
    photos = find_photos(list(map(str, paths)))
    assert [photo.name for photo in photos] == ["a", "a-4", "a-2", "a-3", "a-5"]
    attack, images = AttackTable("fgsm", epsilons=(4,)), tuple(map(str, paths))
    study = Grid(name="x", models=("bicubic",), attacks=(attack,), images=images)
    assert len({cell.key for cell in study.cells()}) == len(paths)
