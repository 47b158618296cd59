import csv
import dataclasses
import html.parser
import io
import json
import math

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from resolute.errors import OutputError
from resolute.figures import DASH, INFINITY, MINUS, Interval, adding_up, change, figure
from resolute.table import Column, Table, TableCell, row

COLUMNS = (
    Column("model", meaning="what was attacked"),
    Column("SR-PSNR", "dB", better="higher", key=True),
    Column("gain", "dB", signed=True),
    Column("seconds", "s", better="lower", digits=1),
    Column("images"),
    Column("moved"),
    Column("hash", code=True),
)
TABLE = Table(
    "Figures",
    COLUMNS,
    [
        row("a|b <i>", Interval(29.104, 28.0, 30.5, 9), Interval(-1.5, -2.0, 0.25, 9), 1.25, 12_345, True, "abc"),
        row("[red]x", math.inf, None, None, 2, False, None, section=True, tone="bad"),
        row(
            "y", TableCell(30.0, Interval(0.896, 0.5, 1.25, 9), "2 unmoved", "good", "y.html"), 0.004, 0.0, 2, True, "d"
        ),
    ],
    notes=["A | note <b>."],
    caption="Means & more.",
)


def shown(table, width=300):
    console = Console(width=width, file=io.StringIO())
    console.print(table.terminal())
    return console.file.getvalue()


class Cells(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(str(text))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_terminal_takes_nothing_for_markup_and_shows_every_value():
    text = shown(TABLE)
    for part in ("a|b <i>", "[red]x", "29.10 [28.00, 30.50]", f"{MINUS}1.50 [{MINUS}2.00, +0.25]", INFINITY, "12,345"):
        assert part in text
    assert "30.00 (+0.90 [+0.50, +1.25]; 2 unmoved)" in text
    assert "Means & more." in text
    assert "lower is better" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_a_narrow_terminal_loses_no_figure(width):
    names = ["model", "attack", "clean", "attacked", "parameters"]
    columns = [Column(name, "levels", digits=2, better="lower" if name == "attacked" else None) for name in names]
    rows = [row(f"edsr-{n}", "I-FGSM with restarts", 30.14 + n, 1234.56, 3_358_833) for n in range(3)]
    text = shown(Table("Which", columns, rows, caption="Means."), width)
    words = text.replace("│", " ").split()
    for n in range(3):
        assert f"edsr-{n}" in words
        assert f"{30.14 + n:.2f}" in words
    assert words.count("3,358,833") == 3
    assert "Means." in words
    assert all(len(line) <= width for line in text.splitlines())


def test_a_long_table_offers_the_columns_by_which_rows_can_be_chosen():
    columns = [Column("model"), Column("attack"), Column("SR-PSNR"), Column("data")]
    rows = [row(f"m{number}", ("fda", "ifgsm")[number % 2], float(number), "set5") for number in range(13)]
    tags = dict(Cells(Table("", columns, rows).html()).tags)
    assert json.loads(tags["table"]["data-filters"]) == {"1": ""}
    assert "data-filters" not in dict(Cells(Table("", columns, rows[:12]).html()).tags)["table"]


def test_a_choice_of_no_column_is_refused():
    with pytest.raises(ValueError, match="no column b"):
        Table("", [Column("a")], [row("x")], choices={"b": "x"})


def test_markdown_has_as_many_cells_in_every_row():
    lines = [line for line in TABLE.markdown().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(COLUMNS) + 1}
    assert lines[0].startswith("| model | SR-PSNR (dB) |")
    assert lines[1].startswith("|---|--:|--:|")
    assert f"| **[red]x** | {INFINITY} | {DASH} |" in lines[3]
    assert "`abc`" in lines[2]


def test_html_escapes_names_its_headers_and_sorts_by_values():
    found = Cells(dataclasses.replace(TABLE, sort="SR-PSNR", choices={"model": "y"}).html("t"))
    assert "a|b <i>" in found.text
    assert ("i", {}) not in found.tags
    tags = dict(found.tags)
    assert tags["table"]["data-sort"] == "1"
    heads = [attributes for tag, attributes in found.tags if tag == "th" and attributes["scope"] == "col"]
    assert heads[0]["title"] == "what was attacked"
    assert heads[1]["data-first"] == "descending"
    assert sum(tag == "th" and attributes["scope"] == "row" for tag, attributes in found.tags) == len(TABLE.rows)
    values = [attributes["data-value"] for tag, attributes in found.tags if tag == "td" and "data-value" in attributes]
    assert values[:3] == ["29.104", "-1.5", "1.25"]
    assert values[4:7] == ["Infinity", "", ""]
    assert json.loads(tags["table"]["data-filters"]) == {"0": "y"}
    assert sum(tag == "tbody" for tag, _ in found.tags) == 2
    assert ("a", {"href": "y.html"}) in found.tags
    assert "<dt>model</dt><dd>what was attacked</dd>" in TABLE.html()
    assert TABLE._repr_html_() == str(TABLE.html())


def test_csv_and_json_hold_the_values_as_measured():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert rows[0]["model"] == "a|b <i>"
    assert float(rows[0]["SR-PSNR"]) == 29.104
    assert (float(rows[0]["SR-PSNR low"]), rows[0]["SR-PSNR n"]) == (28.0, "9")
    assert rows[1]["gain"] == ""
    assert float(rows[1]["SR-PSNR"]) == math.inf
    assert (float(rows[2]["SR-PSNR change"]), rows[2]["SR-PSNR note"]) == (0.896, "2 unmoved")
    content = json.loads(TABLE.json())
    assert content["columns"][1] == {"name": "SR-PSNR", "unit": "dB", "meaning": "", "better": "higher"}
    assert content["rows"][1]["SR-PSNR"] == "Infinity"
    assert content["rows"][1]["seconds"] is None


def test_parquet_and_pandas_keep_types(tmp_path):
    import duckdb

    path = tmp_path / "deep" / "table.parquet"
    TABLE.parquet(path)
    found = duckdb.sql(f"SELECT model, \"SR-PSNR\", images, moved FROM '{path}'")
    assert list(map(str, found.types)) == ["VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"]
    assert found.fetchall()[0] == ("a|b <i>", 29.104, 12_345, True)
    frame = TABLE.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["images"].tolist() == [12_345, 2, 2]
    Table("", COLUMNS, []).parquet(tmp_path / "empty.parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        TABLE.parquet(tmp_path / "file" / "table.parquet")


def test_a_row_has_a_cell_for_every_column():
    with pytest.raises(ValueError, match="row 0"):
        Table("", COLUMNS, [row("a")])


def number(text):
    return float(text.replace(MINUS, "-"))


@given(st.floats(-99, 99), st.floats(-99, 99), st.integers(0, 4))
def test_differences_add_up_as_printed(before, after, digits):
    found = change(before, after, digits)
    assert number(found.before) + number(found.difference) == pytest.approx(number(found.after), abs=1e-9)
    gain = adding_up(Interval(after - before, -200, 200, 9), before, after, digits)
    assert figure(gain.mean, digits, signed=True) == found.difference


def test_nothing_negative_prints_as_a_zero_with_a_sign():
    assert figure(-0.0) == figure(-0.004) == figure(0.004, signed=True) == "0.00"
    assert figure(-0.0049, 3, significant=True) == f"{MINUS}0.0049"


def test_a_gain_over_other_images_stays_as_it_is():
    gain = Interval(2.0, 1.0, 3.0, 9)
    assert adding_up(gain, 30.0, 33.0) == gain
    assert adding_up(gain, None, 33.0) == gain
    assert change(math.inf, math.inf).difference == "0.00"


def test_a_column_without_a_value_is_left_out_of_the_page_alone():
    columns = [Column("model"), Column("PSNR"), Column("SR-PSNR"), Column("note")]
    table = Table("", columns, [row("a", None, 1.0, ""), row("b", float("nan"), None, TableCell("", note="late"))])
    heads = [text for text in ("PSNR</th>", "SR-PSNR</th>", "note</th>") if f">{text}" in table.html()]
    assert heads == ["SR-PSNR</th>", "note</th>"]
    assert "PSNR" in table.records()[0]
    assert '<td data-value="1" data-label="SR-PSNR">1.00</td>' in table.html()
    # What a page sorts by stays.
    assert ">PSNR</th>" in dataclasses.replace(table, sort="PSNR").html()
