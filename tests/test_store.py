"""The folder of a study, whatever its files hold: bad lines are named, counted and left out."""

import codecs
import json
import shutil

import pytest
from small import edit, read_lines
from test_cli import fails, run

from resolute.engine.store import DEPTH, Store, loaded
from resolute.errors import BadRecordsError
from resolute.report.page import CHECK
from resolute.report.reading import read_source

BAD = {
    "NaN": lambda row: json.dumps(row | {"sr_psnr": float("nan")}).encode(),
    "infinite": lambda row: json.dumps(row | {"linf": float("inf")}).encode(),
    "mistyped": lambda row: json.dumps(row | {"epsilon": "4/255"}).encode(),
    "missing": lambda row: json.dumps({name: value for name, value in row.items() if name != "pixels"}).encode(),
    "extra": lambda row: json.dumps(row | {"psnr": 1.0}).encode(),
    "byte order mark": lambda row: codecs.BOM_UTF8 + json.dumps(row).encode(),
    "schema": lambda row: json.dumps(row | {"schema": 1}).encode(),
    "kind": lambda row: json.dumps(row | {"record": "records"}).encode(),
    "nesting": lambda row: json.dumps(row).encode()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge": lambda row: json.dumps(row | {"gradients": 10**4000}).encode(),
    "large": lambda row: json.dumps(row | {"gradients": 2**63}).encode(),
    "UTF-8": lambda row: json.dumps(row | {"image": "caf@"}).encode().replace(b"@", b"\xe9"),
    "no JSON": lambda row: b"hello",
    "a list": lambda row: b"[1, 2]",
    "zeros": lambda row: b"\x00" * 40,
}


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def rows(folder):
    return read_lines(folder / "records.jsonl")


def write(folder, lines):
    (folder / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def lines_of(content):
    return [json.dumps(row).encode() for row in content]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named_and_left_out(folder, case):
    content = rows(folder)
    lines = lines_of(content)
    lines[3] = BAD[case](content[3])
    write(folder, [b"", *lines])
    records, bad = Store(folder).read_all()
    assert {record.key for record in records} == {row["key"] for row in content} - {content[3]["key"]}
    [line] = bad
    assert (line.path, line.line, line.torn) == (folder / "records.jsonl", 5, False)
    assert line.reason
    assert len(str(line)) < 300
    assert "records.jsonl, line 5: " in str(line)
    assert read_source(folder).bad == bad


def test_a_byte_order_mark_loses_no_record(folder):
    path = folder / "records.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Store(folder).read_all()[1] == []
    assert len(Store(folder).read()) == 24
    facts = folder / "study.json"
    facts.write_bytes(codecs.BOM_UTF8 + facts.read_bytes())
    assert len(Store(folder).order()) == 24
    assert Store(folder).read_all()[1] == []


def test_every_torn_line_is_told_from_a_bad_one(folder):
    content = rows(folder)
    whole = json.dumps(content[-1]).encode()
    for end in (1, 2, *range(3, len(whole), 11), len(whole) - 1):
        write(folder, [whole[:end]])
        [line] = Store(folder).read_all()[1]
        assert line.torn, whole[:end]


FACTS = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"cells": 7}', b'{"cells": [1, null]}', b'{"cells": {"a": 1}}',
    b'{"kind": "grid", "study": {"epsilons": [NaN]}}', b'{"a": 1e999}', b"[" * 9000 + b"]" * 9000,
    b'{"n": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("content", FACTS, ids=range(len(FACTS)))
def test_a_damaged_study_is_named(folder, content):
    (folder / "study.json").write_bytes(content)
    store = Store(folder)
    assert len(store.read()) == 24
    [line] = store.read_all()[1]
    assert line.path == folder / "study.json"
    assert store.order() == []


def test_a_missing_study_is_no_bad_line(folder):
    (folder / "study.json").unlink()
    assert Store(folder).read_all()[1] == []
    assert Store(folder).facts() == {}


def test_what_is_loaded():
    assert loaded(b'{"a": "[{", "b": -9223372036854775808}') == {"a": "[{", "b": -(2**63)}
    deep = b'{"a":' + b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1) + b"}"
    assert loaded(deep)["a"]
    for wrong in (deep.replace(b"[", b"[[").replace(b"]", b"]]"), b"7", b'{"a": 9223372036854775808}', b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            loaded(wrong)


def test_commands_say_it_with_an_exit_code(folder, tmp_path):
    content = rows(folder)
    lines = lines_of(content)
    lines[0] = BAD["NaN"](content[0])
    lines[1] = BAD["UTF-8"](content[1])
    write(folder, lines)
    commands = {
        "report": ("report", folder),
        "markdown": ("report", folder, "--out", tmp_path / "tables.md"),
        "compare": ("report", "--compare", folder, folder),
        "query": ("query", "SELECT count(*) AS n FROM attacks", "--runs", folder, "--format", "csv"),
    }
    for name, command in commands.items():
        code, stdout, stderr = run(*command)
        assert code == BadRecordsError.exit_code == 11, (name, stderr)
        assert "records.jsonl, line 1: sr_psnr" in stderr, name
        assert "records.jsonl, line 2: " in stderr, name
        assert "2 bad lines" in stderr, name
        if name == "query":
            assert stdout == "n 22"
    assert (folder / "report.html").is_file()
    assert (tmp_path / "tables.md").is_file()


def test_the_leaderboard_says_it_too(folder, tmp_path):
    with (folder / "records.jsonl").open("ab") as file:
        file.write(b"hello\n")
    code, _, stderr = run("leaderboard", tmp_path, "--out", tmp_path / "site")
    assert code == 11
    assert "records.jsonl, line 25: " in stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_checks_below_a_study_count_too(folder):
    (folder / CHECK).mkdir()
    (folder / CHECK / "records.jsonl").write_text("hello\n")
    assert "check/records.jsonl, line 1" in " ".join(run("report", folder)[2].split())


def test_a_torn_line_is_said_and_is_no_error(folder):
    with (folder / "records.jsonl").open("ab") as file:
        file.write(b'{"record": "attacks", "sche')
    code, _, stderr = run("report", folder)
    assert code == 0
    assert "1 torn line" in stderr


def test_of_a_folder_without_a_single_record_the_reason_is_said(folder):
    write(folder, [b"hello"])
    assert "records.jsonl, line 1: " in fails(5, "report", folder)


def test_records_that_were_edited_by_hand_still_count(folder):
    edit(folder, lambda record: record)
    assert Store(folder).read_all()[1] == []
