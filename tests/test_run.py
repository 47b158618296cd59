"""One call that runs a study of any kind."""

import pytest

import resolute
from resolute.attacks.registry import AttackTable
from resolute.studies import AttackRecord
from resolute.studies.survival import Survival
from resolute.studies.twin import Twin


def test_a_study_and_its_name_give_the_records_of_its_folder(tiny_model, photos, tmp_path, monkeypatch):
    study = resolute.Grid(
        name="small",
        models=(str(tiny_model),),
        attacks=(AttackTable(kind="ifgsm", steps=2),),
        epsilons=(4.0,),
        images=(str(photos),),
        high_resolution=False,
    )
    titles = []
    records = resolute.run(
        study, tmp_path / "out", resolute.Machine(), progress=lambda done, total, title: titles.append(title)
    )
    assert [type(record) for record in records] == [AttackRecord, AttackRecord]
    assert titles
    assert resolute.run(study, str(tmp_path / "out"), resolute.Machine()) == records

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resolute.engine.running.read_study", lambda source: study if source == "small" else None)
    again = resolute.run("small")
    assert [record.key for record in again] == [record.key for record in records]
    assert (tmp_path / "runs" / "small" / "records.jsonl").is_file()


def test_a_folder_is_of_one_kind_of_study(photos, tmp_path):
    whole = Survival(models=("bicubic",), images=(str(photos),), corruptions=("noise",), severities=(1,))
    records = resolute.run(whole, tmp_path / "out", resolute.Machine())
    other = Twin(models=("bicubic", "edsr-xs"), images=(str(photos),), level=0)
    with pytest.raises(resolute.ConfigError, match="survival"):
        resolute.run(other, tmp_path / "out", resolute.Machine())
    assert resolute.run(whole, tmp_path / "out", resolute.Machine()) == records


def test_a_study_that_is_not_there_is_named():
    with pytest.raises(resolute.ConfigError, match="no-such-study"):
        resolute.run("no-such-study")
