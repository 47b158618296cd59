"""Questions in SQL over the records of studies."""

import contextlib
import csv
import dataclasses
import io
import json
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from resolute import ConfigError, Grid
from resolute import run as run_study
from resolute.attacks.registry import AttackTable
from resolute.cli import app
from resolute.engine import Store
from resolute.engine.query import documentation, find_runs, query, view_columns
from resolute.engine.store import append_line
from resolute.images import sample_image, write_png
from resolute.studies import AttackRecord
from resolute.studies.kinds import RECORDS
from resolute.studies.steepness import CleverRecord, CleverTable


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_png(folder / "photos" / "coffee.png", sample_image("coffee")[:, 100:164, 150:199])
    study = Grid(
        name="one", models=("bicubic",), attacks=(AttackTable(kind="ifgsm", steps=2),), epsilons=(2, 4),
        images=(str(folder / "photos"),), clever=CleverTable(samples=2),
    )  # fmt: skip
    run_study(study, folder / "one")
    run_study(dataclasses.replace(study, epsilons=(4, 8)), folder / "deep" / "two")
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["query", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_what_several_runs_hold_counts_once(runs):
    assert [path.name for path in find_runs([runs])] == ["two", "one"]
    found = query("SELECT epsilon * 255 AS level, sr_psnr, run FROM attacks ORDER BY 1", find_runs([runs]))
    assert [round(row[0]) for row in found.rows] == [2, 4, 8]
    stored = {record.epsilon: record.sr_psnr for record in Store(runs / "one").of(AttackRecord)}
    assert [row[1] for row in found.rows[:2]] == list(stored.values())
    assert query("SELECT count(*) FROM clever", find_runs([runs])).rows == [(1,)]
    assert {record.view for record in Store(runs / "one").read()} == {AttackRecord.view, CleverRecord.view}


def test_every_figure_comes_out_as_it_was_stored(runs):
    found = query("SELECT * FROM attacks", [runs / "one"])
    rows = [dict(zip(found.names, row, strict=True)) for row in found.rows]
    stored = Store(runs / "one").of(AttackRecord)
    assert [{**row, "files": json.loads(row["files"])} for row in rows] == [
        dataclasses.asdict(record) | {"files": list(record.files), "run": str(runs / "one")} for record in stored
    ]


def test_a_torn_line_is_left_out(runs, tmp_path):
    lines = [json.dumps(record.as_line()) for record in Store(runs / "one").of(AttackRecord)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines)[:-30])
    assert query("SELECT count(*) FROM attacks", [tmp_path]).rows == [(1,)]


def test_formats(runs, tmp_path):
    sql = "SELECT model, attack, count(*) AS n, min(sr_psnr) AS low, NULL AS nothing FROM attacks GROUP BY ALL"
    assert "bicubic" in run(sql, "--runs", runs).stdout
    rows = list(csv.DictReader(io.StringIO(run(sql, "--runs", runs, "--format", "csv").stdout)))
    assert [(row["model"], row["n"]) for row in rows] == [("bicubic", "3")]
    [row] = json.loads(run(sql, "--runs", runs, "--format", "json").stdout)
    assert row["nothing"] is None
    assert row["low"] == float(rows[0]["low"])
    path = tmp_path / "answer.parquet"
    assert run(sql, "--runs", runs, "--format", "parquet", "--out", path).exit_code == 0
    assert duckdb.read_parquet(str(path)).fetchall() == [("bicubic", "ifgsm", 3, row["low"], None)]
    assert run(sql, "--runs", runs, "--format", "parquet", "--out", path / "below").exit_code == 7
    assert run(sql, "--runs", runs, "--format", "parquet", "--out", tmp_path).exit_code == 7
    assert [file.name for file in tmp_path.iterdir()] == ["answer.parquet"]
    assert run(sql, "--runs", runs, "--format", "csv", "--out", tmp_path / "answer.csv").stdout == ""
    assert (tmp_path / "answer.csv").read_text().startswith("model,attack,n")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT modle FROM attacks", 'Candidate bindings: "model"'),
        ("SELECT modle FROM attacks", "--columns"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM attaks", "attacks, clever, checks"),
        ("SELECT * FROM read_text('/etc/passwd')", "disabled"),
        ("COPY attacks TO 'stolen.csv'", "disabled"),
        ("SET enable_external_access = true", "locked"),
        ("ATTACH 'other.db'", "disabled"),
    ],
)
def test_wrong_questions_are_explained_and_reach_nothing(runs, sql, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(sql, "--runs", runs)
    assert result.exit_code == 5
    assert words in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_query_changes_no_record(runs):
    before = (runs / "one" / "records.jsonl").read_bytes()
    assert run("DELETE FROM attacks", "--runs", runs).exit_code == 0
    assert (runs / "one" / "records.jsonl").read_bytes() == before
    with pytest.raises(ConfigError):
        query("COPY attacks TO '/tmp/elsewhere.parquet'", [runs / "one"], Path("/tmp/answer.parquet"))


def test_what_is_missing_is_said(tmp_path):
    assert "no records" in run("SELECT 1", "--runs", tmp_path).stderr
    assert "give a query" in run().stderr
    assert "--out" in run("SELECT 1", "--runs", tmp_path, "--format", "parquet").stderr


@pytest.mark.parametrize(("view", "kind"), RECORDS.items())
def test_every_column_is_documented(view, kind):
    assert kind.view == view
    documented = {column.name: column for column in view_columns(view)}
    assert documented.keys() == {field.name for field in dataclasses.fields(kind)} | {"run"}
    assert all(len(column.text) > 4 for column in documented.values())


def test_the_page_of_columns_is_up_to_date():
    page = Path(__file__).parents[1] / "docs" / "records.md"
    assert page.read_text(encoding="utf-8") == documentation(), "resolute query --columns --out docs/records.md"


def test_records_of_strange_names_are_asked_for_too(runs, tmp_path):
    [record, *_] = Store(runs / "one").of(AttackRecord)
    strange = dataclasses.replace(record, image='it\'s "ä" \u2028 \\n', sr_psnr=None)
    lone = dataclasses.replace(record, image="\udcff", key="f" * 24)
    append_line(tmp_path / "it's" / "records.jsonl", strange.as_line(), lone.as_line())
    assert query("SELECT image, sr_psnr, run FROM attacks", find_runs([tmp_path])).rows == [
        (strange.image, None, str(tmp_path / "it's")),
        ("?", record.sr_psnr, str(tmp_path / "it's")),
    ]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 'nan'::DOUBLE AS a, [1.5, 'inf'::DOUBLE] AS b", [{"a": None, "b": [1.5, None]}]),
        ("SELECT {'x': 'nan'::DOUBLE} AS a", [{"a": {"x": None}}]),
        ("SELECT DATE '2020-01-01' AS a", [{"a": "2020-01-01"}]),
    ],
)
def test_an_answer_is_json_that_others_read(runs, sql, told):
    assert json.loads(query(sql, find_runs([runs])).json(), parse_constant=pytest.fail) == told


def test_columns_of_one_name_are_not_lost(runs):
    with pytest.raises(ConfigError, match="'a'"):
        query("SELECT 1 AS a, 2 AS a", find_runs([runs])).json()


def test_an_answer_without_end_is_refused(runs, monkeypatch):
    monkeypatch.setattr("resolute.engine.query.MOST_ROWS", 1000)
    assert len(query("SELECT * FROM range(1000)", find_runs([runs])).rows) == 1000
    with pytest.raises(ConfigError, match="LIMIT"):
        query("SELECT * FROM range(1001)", find_runs([runs]))


HOSTILE = (
    "", ";", "\0", "\udcff", "SELECT 1; SELECT 2", "SELECT * FROM runs", "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/*')", "FROM '/etc/passwd'", "COPY attacks TO '/dev/shm/x'", "ATTACH '/dev/shm/x'",
    "LOAD httpfs", "SET threads = 9", "SET enable_external_access = true",
    "EXPORT DATABASE '/dev/shm/x'", "IMPORT DATABASE '/'", "SELECT $1",
    "SELECT getenv('HOME')", "SELECT error('a\nb')", "SELECT 'infinity'::TIMESTAMP", "SELECT '290000-01-01'::DATE",
    "SELECT '12:00:00+15:59'::TIMETZ", "SELECT INTERVAL 1000000 YEAR", "SELECT MAP {'a': 1}, '\\xAA'::BLOB, 1::BIT",
    f"SELECT {'(' * 3000}1{')' * 3000}", f"SELECT {'-' * 9000}1", "DROP TABLE attacks", "PRAGMA database_list",
)  # fmt: skip


@pytest.mark.hostile
@pytest.mark.parametrize("sql", HOSTILE, ids=range(len(HOSTILE)))
def test_odd_questions_are_answered_or_refused(runs, sql):
    with contextlib.suppress(ConfigError):
        found = query(sql, find_runs([runs]))
        json.loads(found.json())
        assert "root:" not in found.csv()
