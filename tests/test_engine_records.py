"""What a run returns: a list that shows itself and becomes tables of other libraries."""

import dataclasses
import pickle
import sys

import pytest
from small import grid

from resolute import ConfigError, run
from resolute.engine.query import view_columns
from resolute.studies.steepness import CleverTable


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("<b>records")
    return run(dataclasses.replace(grid(folder), clever=CleverTable(samples=4)), folder / "run")


def test_records_are_a_list_that_shows_itself(records):
    assert list(records) == records
    assert repr(records) == f"<{len(records)} records of attacks {records.study.name!r}>"
    html = records._repr_html_()
    assert html.count("<table") == len(records.results().brief or records.results().tables)
    assert "<b>" not in html
    assert pickle.loads(pickle.dumps(records)).study == records.study


def test_records_become_a_relation_and_a_frame(records):
    own = [record for record in records if record.view == "attacks"]
    relation = records.relation("attacks")
    assert relation.columns == [column.name for column in view_columns("attacks")]
    assert relation.filter("epsilon < 0.01").aggregate("count(*)").fetchall() == [
        (sum(record.epsilon < 0.01 for record in own),)
    ]
    frame = records.frame("attacks")
    assert frame["sr_psnr"].tolist() == pytest.approx([record.sr_psnr for record in own])
    assert frame["key"].tolist() == [record.key for record in own]


def test_of_several_kinds_one_is_named(records, monkeypatch):
    with pytest.raises(ConfigError, match="attacks, clever"):
        records.relation()
    with pytest.raises(ConfigError, match="attacks, clever"):
        records.relation("scores")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="install pandas"):
        records.frame("attacks")
