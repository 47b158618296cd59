"""The study of corruptions: what it computes, concludes, draws and shows."""

import dataclasses

import pytest
import torch
from small import tiny
from test_cli import fails, run

from resolute import Bicubic, ConfigError, load
from resolute import run as run_study
from resolute.corruptions import CORRUPTIONS, corrupted
from resolute.engine import Store
from resolute.images import read_image, sample_image, write_png
from resolute.measure.fidelity import psnr_rgb, psnr_y
from resolute.models import EDSR
from resolute.report.page import write_markdown
from resolute.resize import downscale_tensor
from resolute.studies.results import Case, Missing
from resolute.studies.survival import Survival, consistency, damaged
from resolute.studies.survival_results import results_of, survived


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survive")
    for name in ("coffee", "rocket"):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:188, 100:188])
    tiny(folder / "net.safetensors", "net")
    return folder


@pytest.fixture(scope="module")
def made(place):
    study = Survival(models=(str(place / "net.safetensors"), "bicubic"), images=(str(place / "photos"),))
    return study, run_study(study, place / "run")


def test_every_figure_is_that_of_the_definition(made, place):
    study, records = made
    subjects = {subject.name: subject for subject in study.subjects()}
    models = {"net": load(place / "net.safetensors"), "bicubic": Bicubic(4)}
    assert len(records) == 2 * 7 * 5 * 2
    for record in records[::11]:
        subject, model = subjects[record.image], models[record.model]
        low = damaged(subject, record.corruption, record.severity, 4, 0)
        with torch.no_grad():
            clean, output = model(subject.low), model(low)
        assert record.psnr_y == pytest.approx(float(psnr_y(output, subject.truth, 4)), abs=1e-3)
        assert record.clean_psnr_y == pytest.approx(float(psnr_y(clean, subject.truth, 4)), abs=1e-3)
        assert record.sr_psnr == pytest.approx(float(psnr_rgb(clean, output)), abs=1e-3)
        shrunk = downscale_tensor(output.clamp(0, 1), 4)
        assert record.consistency == pytest.approx(float(psnr_rgb(low, shrunk)), abs=1e-3)
        assert record.level == str(CORRUPTIONS[record.corruption].levels[record.severity - 1])


def test_models_see_the_same_damage_and_images_another(made):
    study, _ = made
    one, other = study.subjects()
    noise = [damaged(subject, "noise", 5, 4, 0) - subject.low for subject in (one, other, one)]
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])


def test_an_output_that_shrinks_to_its_input_is_consistent():
    x = sample_image("coffee")[None, :, 100:124, 100:124]
    flat = torch.full_like(x, 0.5)
    assert (consistency(flat.repeat_interleave(4, 2).repeat_interleave(4, 3), flat) or 200) > 120
    assert consistency(Bicubic(4)(x), x) < 60
    assert consistency(torch.full((1, 3, 96, 96), torch.nan), x) == 0


def test_the_mean_is_over_images_of_means(made):
    _, records = made
    own = [record for record in records if record.model == "net"]
    each = {name: [r.psnr_y for r in own if r.image == name] for name in ("coffee", "rocket")}
    means = [sum(values) / len(values) for values in each.values()]
    assert survived(own).mean == pytest.approx(sum(means) / 2)
    assert survived(own).n == 2


def test_who_falls_behind_bicubic_is_told(made):
    _, records = made
    better = [30 * (r.model == "net") for r in records]
    ahead = [
        dataclasses.replace(r, psnr_y=r.psnr_y + more, clean_psnr_y=r.clean_psnr_y + more)
        for r, more in zip(records, better, strict=True)
    ]
    assert "worse than bicubic" in results_of(records).sentences[0]
    assert "behind" not in results_of(ahead).sentences[0]
    assert "worse than bicubic" not in results_of(ahead).sentences[0]
    late = [
        dataclasses.replace(r, psnr_y=r.psnr_y - 60 * (r.corruption == "blur" and r.severity > 2))
        if r.model == "net"
        else r
        for r in ahead
    ]
    assert "blur from severity 3 on" in results_of(late).sentences[0]


def test_equal_images_are_left_out_of_no_mean(made):
    _, records = made
    one = [record for record in records if record.corruption == "jpeg"]
    # Of a black photograph bicubic interpolation gives what there was, and a network nearly.
    equal = {"clean_psnr_y": None, "consistency": None, "sr_psnr": 40.0}
    black = [
        dataclasses.replace(
            record, image="black", **equal | {"psnr_y": None if record.severity < 4 else 50.0}
            if record.model == "bicubic" else {"clean_psnr_y": 70.0, "psnr_y": 70.0},
        )
        for record in one if record.image == "coffee"
    ]  # fmt: skip
    for every in ([*one, *black], [*black, *one]):
        table = results_of(every).tables[0]
        usual = next(cells for row in table.rows if (cells := [c.value for c in row.cells])[0] == "bicubic")
        shown = dict(zip((column.name for column in table.columns), usual, strict=True))
        clean = [record.clean_psnr_y for record in one if record.model == "bicubic" and record.severity == 1]
        assert shown["clean"].n == 3
        assert shown["clean"].mean == pytest.approx((sum(clean) + 100) / 3)
        kept = [record.psnr_y for record in one if record.model == "bicubic"]
        assert shown["survived"].mean == pytest.approx((sum(kept) + 3 * 100 + 2 * 50) / 15)
        assert "100" in table.caption
    unmoved = [dataclasses.replace(r, psnr_y=None, clean_psnr_y=None, ssim_y=None, clean_ssim_y=None, sr_psnr=None)
               for r in one]  # fmt: skip
    assert "no output moved" in results_of(unmoved).sentences[0]


def test_without_truth_outputs_are_compared_with_clean_ones(place, tmp_path):
    study = Survival(models=("bicubic",), images=(str(place / "photos"),), high_resolution=False, severities=(1, 5))
    records = run_study(study, tmp_path)
    assert {record.corruption for record in records} == set(CORRUPTIONS) - {"kernel"}
    assert {record.psnr_y for record in records} == {None}
    results = study.results(records)
    assert survived(records).mean > 25
    assert "clean" not in [column.name for column in results.tables[0].columns]


def test_cases_show_the_damage(made, place):
    study, records = made
    cases = list(study.cases(records, place / "run"))
    assert all(isinstance(case, Case) for case in cases)
    assert len(cases) == 7 * 2
    views = {view.label: view.pixels for view in cases[0].views}
    assert {"ground truth", "damaged input", "output, bicubic", "output, damaged input"} <= views.keys()
    (place / "photos" / "coffee.png").rename(place / "away.png")
    try:
        assert any(isinstance(case, Missing) for case in study.cases(records, place / "run"))
    finally:
        (place / "away.png").rename(place / "photos" / "coffee.png")


def test_outputs_that_are_not_finite_are_counted(place, tmp_path, monkeypatch):
    whole = EDSR.forward

    def bursts(self, x):
        return whole(self, x) * (torch.nan if x.std() < 0.02 else 1)

    monkeypatch.setattr(EDSR, "forward", bursts)
    write_png(tmp_path / "dull.png", torch.full((3, 48, 48), 0.5))
    study = Survival(models=(str(place / "net.safetensors"),), images=(str(tmp_path / "dull.png"),), severities=(1,))
    records = run_study(study, tmp_path / "run")
    assert all(record.broken and record.psnr_y == 0 for record in records)
    assert "not finite" in study.results(records).sentences[0]


def test_as_typed(place, tmp_path):
    arguments = "survive", place / "net.safetensors", "--images", place / "photos", "--corruption", "jpeg", "--out"
    code, told, _ = run(*arguments, tmp_path / "run")
    assert code == 0
    assert "net has" in told
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(Store(tmp_path / "run").read()) == 2 * 5 * 2
    assert "JPEG" in write_markdown([tmp_path / "run"], tmp_path / "page.md").read_text()
    assert run(*arguments, tmp_path / "run", "--plan")[0] == 0


def test_what_cannot_be_is_said(place, tmp_path):
    fails(5, "survive", "bicubic", "--images", place / "photos", "--corruption", "snow", "--out", tmp_path / "run")
    with pytest.raises(ConfigError):
        Survival(models=("bicubic",), severities=(7,)).cells()
    with pytest.raises(ConfigError):
        Survival(
            models=("bicubic",), images=(str(place / "photos"),), high_resolution=False, corruptions=("kernel",)
        ).cells()
    assert read_image(place / "photos" / "coffee.png").shape == (3, 88, 88)
    assert corrupted(torch.zeros(3, 4, 4), "jpeg", 1).shape == (3, 4, 4)
