"""The study that compares models on one's own photographs: what it measures, concludes and shows."""

import dataclasses

import pytest
import torch
from small import tiny
from test_cli import fails, run

from resolute import Bicubic, ConfigError, ImageError, load
from resolute import run as run_study
from resolute.engine import Store
from resolute.errors import ImageWarning
from resolute.images import read_image, sample_image, write_png
from resolute.measure.fidelity import psnr_rgb, psnr_y
from resolute.measure.footprint import peak_bytes
from resolute.report.reading import read_folder
from resolute.studies.choice import Choice
from resolute.studies.choice_results import ATTACK, CLEAN, aspects, behind, results_of
from resolute.studies.record import grouped
from resolute.studies.results import Case
from resolute.studies.survival import damaged

BRIGHT = """
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, x):
        y = nn.functional.pixel_shuffle(self.layer(x), 4)
        return torch.where(x.mean() > 0.97, torch.full_like(y, torch.nan), y)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choice")
    for name in ("coffee", "rocket"):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:188, 100:188])
    tiny(folder / "net.safetensors", "net")
    return folder


@pytest.fixture(scope="module")
def made(place):
    study = Choice(models=(str(place / "net.safetensors"), "bicubic"), images=(str(place / "photos"),), steps=2)
    return study, run_study(study, place / "run")


def test_every_figure_is_that_of_the_definition(made, place):
    study, records = made
    models = {"net": load(place / "net.safetensors"), "bicubic": Bicubic(4)}
    subjects = {subject.name: subject for subject in study.subjects()}
    assert len(records) == 2 * 2 * 4
    for record in records:
        subject, model = subjects[record.image], models[record.model]
        low = subject.low if record.trial == CLEAN else None
        if record.trial == ATTACK:
            low = read_image(place / "run" / record.files[0])[None]
            assert 0 < float((low - subject.low).abs().max()) * 255 <= 4 + 1e-3
        low = damaged(subject, record.trial, 2, 4, 0) if low is None else low
        with torch.no_grad():
            clean, output = model(subject.low), model(low)
        assert record.psnr_y == pytest.approx(float(psnr_y(output, subject.truth, 4)), abs=1e-3)
        if record.trial == CLEAN:
            assert record.memory == peak_bytes(model, subject.low)
            assert record.pixels_out == 88 * 88
            assert 0 < record.seconds < 1
        else:
            assert record.sr_psnr == pytest.approx(float(psnr_rgb(clean, output)), abs=1e-3)
            assert record.memory is None


def test_memory_is_that_of_what_is_alive():
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3, padding=1)]
    model, x = torch.nn.Sequential(*layers), torch.zeros(1, 3, 10, 10)
    weights = sum(p.numel() for p in model.parameters())
    # While the second layer runs its input is alive, which the caller of the first still holds.
    assert peak_bytes(model, x) == 4 * (weights + 300 + 2 * 800)
    layers[1].inplace = True
    assert peak_bytes(model, x) == 4 * (weights + 300 + 800 + 300)
    assert peak_bytes(Bicubic(2), torch.zeros(1, 3, 32, 32)) > 4 * 3 * (32 * 32 + 64 * 64)


def test_who_is_best_and_who_is_behind_is_told(made):
    _, records = made
    better = [
        dataclasses.replace(r, psnr_y=50.0, ssim_y=0.99, consistency=99.0, seconds=1e-9, memory=r.memory and 1)
        if r.model == "net"
        else r
        for r in records
    ]
    first, *others = results_of(better).sentences
    assert first.count("net is") == 1
    assert any("net is at least as good as bicubic in everything" in sentence for sentence in others)
    models = grouped(better, lambda one: one.model)
    assert behind(models, aspects(better)) == {"bicubic": "net"}
    slow = [dataclasses.replace(r, seconds=9.0) if r.model == "net" else r for r in better]
    assert behind(grouped(slow, lambda one: one.model), aspects(slow)) == {}
    table = results_of(slow).tables[0]
    toned = {row.cells[0].value: [cell.tone for cell in row.cells[1:]] for row in table.rows}
    place = [column.name for column in table.columns[1:]].index("time")
    assert (toned["net"][place], toned["bicubic"][place]) == ("", "good")


def test_models_that_differ_by_chance_are_not_told_apart(made):
    _, records = made
    noisy = [
        dataclasses.replace(
            r, image=f"{r.image} {number}", key=f"{r.key}{number}", model=r.model + "2",
            psnr_y=30 + ((-1) ** number * 0.5 + 0.1 if r.model == "net" else 0),
        )
        for r in records
        for number in range(3)
    ]  # fmt: skip
    assert any("cannot be told" in sentence for sentence in results_of(noisy).sentences)
    sure = [dataclasses.replace(r, psnr_y=30 + (r.model == "net2")) for r in noisy]
    assert not any("cannot" in sentence for sentence in results_of(sure).sentences)
    few = [record for record in sure if not record.image.endswith("2")]
    assert any("cannot show" in sentence for sentence in results_of(few).sentences)


def test_only_images_that_all_have_answered_count(made):
    _, records = made
    half = [record for record in records if record.model == "net" or record.image == "coffee"]
    assert "on 1 image" in results_of(half).sentences[0]
    assert "on 2 images" in results_of([r for r in records if r.model == "net"]).sentences[0]
    assert not results_of([]).tables


def test_without_truth_outputs_are_scored(place, tmp_path):
    images = {"images": (str(place / "photos"),), "high_resolution": False, "crop": 40}
    study = Choice(models=("bicubic",), metric="quality-s", level=0, **images)
    records = run_study(study, tmp_path)
    assert {record.trial for record in records} == {CLEAN, "jpeg", "noise"}
    assert {record.psnr_y for record in records} == {None}
    scores = [record.score for record in records if record.trial == CLEAN]
    assert all(0 < score < 100 for score in scores)
    titles = [one.title for one in aspects(records)]
    assert titles == ["score", "consistency", "damaged", "time", "memory"]


def test_cases_show_every_model(made, place):
    study, records = made
    cases = list(study.cases(records, place / "run"))
    assert all(isinstance(case, Case) for case in cases)
    assert len(cases) == 2
    assert [(view.label, view.group) for view in cases[0].views[2:]] == [
        ("output", "net"), ("output, attacked", "net"), ("output", "bicubic"), ("output, attacked", "bicubic"),
    ]  # fmt: skip


def test_as_typed(place, tmp_path):
    arguments = "compare-models", place / "net.safetensors", "--images", place / "photos", "--steps", 1, "--out"
    code, told, _ = run(*arguments, tmp_path / "run", "--fail-under", "psnr@clean=5")
    assert code == 0
    assert "bicubic is" in told
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(Store(tmp_path / "run").read()) == 2 * 2 * 4
    assert run(*arguments, tmp_path / "run", "--plan")[0] == 0


def test_what_cannot_be_is_said(place, tmp_path):
    tiny(place / "other" / "net.safetensors", "net", seed=3)
    two = str(place / "net.safetensors"), str(place / "other" / "net.safetensors")
    with pytest.raises(ConfigError):
        Choice(models=two).cells()
    fails(4, "compare-models", "bicubic", "--images", place / "photos", "--metric", "nobody", "--out", tmp_path)
    with pytest.raises(ConfigError):
        Choice(models=("bicubic",), images=(str(place / "photos"),), level=0.5).cells()


@pytest.mark.filterwarnings("ignore::resolute.errors.ModelWarning")
def test_an_output_that_is_not_finite_is_the_worst_there_is(place, tmp_path):
    write_png(tmp_path / "photos" / "white.png", torch.full((3, 64, 64), 252 / 255))
    (tmp_path / "net.py").write_text(BRIGHT)
    models = f"{tmp_path / 'net.py'}:Bright#x4", str(place / "net.safetensors")
    study = Choice(models=models, images=(str(tmp_path / "photos"),), metric="quality-s", steps=1)
    records = run_study(study, tmp_path / "run")
    own = {record.trial: record for record in records if record.model == "Bright"}
    assert all(record.broken for record in own.values())
    assert {record.psnr_y for record in own.values()} == {0}
    assert set(own) == {CLEAN, "jpeg", "noise", ATTACK}
    results = results_of(records)
    assert "net is" in results.sentences[0]
    assert "Bright is" not in results.sentences[0].replace("Bright is fastest", "").replace("Bright is smallest", "")
    assert all(isinstance(case, Case) for case in study.cases(records, tmp_path / "run"))


def test_equal_images_count_and_nobody_wins_a_tie(made):
    _, records = made
    exact = [
        dataclasses.replace(r, psnr_y=None, consistency=None) if r.model == "bicubic" and r.image == "coffee" else r
        for r in records
    ]
    assert "bicubic is closest to the truth" in results_of(exact).sentences[0]
    (psnr,) = (row.cells[1].value for row in results_of(exact).tables[0].rows if row.cells[0].value == "bicubic")
    assert psnr.n == 2
    alike = [dataclasses.replace(r, psnr_y=30.0) for r in records]
    assert "net and bicubic are equally closest to the truth" in results_of(alike).sentences[0]


def test_scores_of_which_lower_is_better_are_ranked_so(made):
    _, records = made
    scored = [
        dataclasses.replace(r, metric="niqe", score=3.0 if r.model == "net" else 5.0, lower_better=True)
        if r.trial == CLEAN
        else r
        for r in records
    ]
    net = next(part for part in results_of(scored).sentences[0].split(";") if "net is" in part)
    assert "scored best" in net
    lost = [dataclasses.replace(r, score=None) if r.model == "net" else r for r in scored]
    assert "net" not in next(part for part in results_of(lost).sentences[0].split(";") if "scored best" in part)


def test_what_runs_outside_pytorch_is_attacked_by_queries_and_not_weighed(place, tmp_path):
    onnx = pytest.importorskip("onnxruntime") and tmp_path / "other.onnx"
    assert run("export", place / "net.safetensors", onnx)[0] == 0
    study = Choice(models=(str(onnx), "bicubic"), images=(str(place / "photos"),), steps=1)
    cells = study.cells()
    assert {type(cell.attack).__name__ for cell in cells} == {"Square"}
    assert "Square" in study.facts(cells)["attack"]
    records = run_study(study, tmp_path / "run")
    assert {r.memory for r in records if r.model != "bicubic"} == {None}
    assert "bicubic is" in results_of(records).sentences[0]


def test_other_settings_in_one_folder_are_not_mixed(place, tmp_path):
    for steps in (1, 2):
        study = Choice(models=("bicubic",), images=(str(place / "photos"),), steps=steps)
        records = run_study(study, tmp_path / "run")
    assert {record.key for record in read_folder(tmp_path / "run").records} == {record.key for record in records}


def test_an_image_that_is_too_small_is_named_and_the_others_are_used(place, tmp_path):
    write_png(tmp_path / "speck.png", sample_image("coffee")[:, 100:103, 100:103])
    study = Choice(models=("bicubic",), images=(str(place / "photos"), str(tmp_path / "speck.png")))
    with pytest.warns(ImageWarning, match=r"1 of 3 images left out: speck: .*3x3"):
        assert [subject.name for subject in study.subjects()] == ["coffee", "rocket"]
    with pytest.raises(ImageError, match="3x3"):
        Choice(models=("bicubic",), images=(str(tmp_path / "speck.png"),)).subjects()
