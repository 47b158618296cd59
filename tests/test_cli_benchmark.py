import dataclasses

import pytest
from test_cli_check import run

from resolute.engine import Store
from resolute.images import sample_image, write_png
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study
from resolute.studies.summary import level_of


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:148, 100:148])
    return folder


def test_the_suite_has_all_that_a_figure_of_robustness_needs():
    suite = read_study("sr-linf-1")
    assert isinstance(suite, Grid)
    assert len(set(suite.names)) == 20
    budgets = {table.name: table.epsilons or suite.epsilons for table in suite.attacks}
    assert {level for levels in budgets.values() for level in levels} == {1, 4, 8}
    assert budgets["random signs"] == (1, 4, 8)
    assert {table.kind for table in suite.attacks} == {"noise", "ifgsm", "fda", "apgd", "square"}
    built = {table.name: table.build(4 / 255) for table in suite.attacks}
    assert built["ifgsm"].steps == built["FDA on Φ"].steps == 50
    assert built["apgd"].steps >= 200


def test_the_quick_form_needs_no_data_and_goes_on_where_it_stopped(tiny_model, photos, tmp_path):
    out = tmp_path / "out"
    command = ("benchmark", tiny_model, "--quick", "--images", photos, "--out", out)
    code, stdout, _ = run(*command)
    assert code == 0
    records = Store(tmp_path / "out-quick").read()
    assert {record.model for record in records} == {"tiny", "bicubic"}
    assert len(records) == 2 * 11
    assert {level_of(record) for record in records} == {1, 4, 8}
    assert "tiny" in stdout
    assert "attacked PSNR" in stdout
    before = (tmp_path / "out-quick" / "records.jsonl").read_bytes()
    assert run(*command)[0] == 0
    assert (tmp_path / "out-quick" / "records.jsonl").read_bytes() == before


def test_the_plan_computes_nothing(tiny_model, photos, tmp_path):
    code, stdout, _ = run("benchmark", tiny_model, "--quick", "--plan", "--images", photos, "--out", tmp_path / "out")
    assert code == 0
    assert "22 cells" in stdout
    assert not (tmp_path / "out-quick" / "records.jsonl").exists()


def test_the_quick_form_takes_a_few_of_many_images(tiny_model, photos, tmp_path):
    for number in range(9):
        write_png(photos / f"more{number}.png", sample_image("coffee")[:, number : number + 48, 100:148])
    code, stdout, _ = run("benchmark", tiny_model, "--quick", "--plan", "--images", photos, "--out", tmp_path / "out")
    assert code == 0
    assert f"{4 * 22} cells" in stdout


def test_images_of_the_suite_are_missed_by_name(tiny_model, photos, tmp_path):
    code, _, stderr = run("benchmark", tiny_model, "--images", photos, "--out", tmp_path / "out")
    assert code == 3
    assert "101085" in stderr


def test_without_images_it_says_where_to_put_them(tiny_model, tmp_path, monkeypatch):
    monkeypatch.delenv("RESOLUTE_DATA", raising=False)
    code, _, stderr = run("benchmark", tiny_model, "--out", tmp_path / "out")
    assert code == 3
    assert "RESOLUTE_DATA" in stderr


def test_options_of_a_file_are_about_one_model(tiny_model, tmp_path):
    code, _, stderr = run("benchmark", tiny_model, tiny_model, "--scale", 4, "--out", tmp_path / "out")
    assert code == 5
    assert "#x4" in stderr


@pytest.mark.data
def test_the_crops_are_those_of_bsd100(data_dir):
    folder = next(path for path in (data_dir / "sr_test" / "b100").iterdir() if path.name.startswith("HR"))
    found = list(dataclasses.replace(read_study("sr-linf-1"), images=(f"bsd100={folder}",)).cells())
    assert len(found) == 20 * 11
    assert {cell.shape for cell in found} == {(1, 3, 32, 32)}
