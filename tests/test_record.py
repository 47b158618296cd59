"""Records: what is one, and what is none, whatever anyone has written in its place."""

import dataclasses
import json
import math
import re
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolute.errors import ConfigError
from resolute.studies.kinds import KINDS, RECORDS
from resolute.studies.record import SCHEMA, Record, columns, read_record, record_key


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a record."""

    size: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """A record with every type of field that records have.

    Attributes:
        figure: may be missing.
        whole: a number.
        yes: or no.
        named: figures by name.
        listed: figures.
        part: of its own type.
        free: whatever JSON holds.
    """

    view: ClassVar[str] = "samples"

    figure: float | None
    whole: int = 1
    yes: bool = False
    named: dict[str, float | None] = dataclasses.field(default_factory=dict)
    listed: tuple[float, ...] = ()
    part: Part | None = None
    free: dict[str, object] = dataclasses.field(default_factory=dict)


KINDS_READ = {"samples": Sample}
WHOLE = Sample(
    key="0123456789abcdef", model="m", weights="", image="i", pixels="p", width=3, height=2, seed=-1, seconds=0.5,
    figure=None, whole=7, yes=True, named={"a": None, "b": 1.5}, listed=(1.0, 2.0), part=Part(2.0),
    free={"x": [1]}, files=("attacked/0f.png",),
)  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def line(**changed):
    return json.loads(json.dumps(WHOLE.as_line())) | changed


def test_a_record_reads_back_as_it_was_written():
    assert read_record(line(), KINDS_READ) == WHOLE
    assert WHOLE.figures().keys() == {field.name for field in dataclasses.fields(Sample)} - {"seconds"}


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        ("figure", {"figure": math.nan}),
        ("figure", {"figure": -math.inf}),
        ("figure", {"figure": "3.5"}),
        ("figure", {"figure": True}),
        ("seconds", {"seconds": None}),
        ("seconds", {"seconds": 10**400}),
        ("whole", {"whole": 1.0}),
        ("whole", {"whole": False}),
        ("yes", {"yes": 1}),
        ("named.a", {"named": {"a": math.inf}}),
        ("listed.1", {"listed": [1.0, math.nan]}),
        ("listed", {"listed": 1.0}),
        ("part.size", {"part": {"size": math.nan}}),
        ("part.size", {"part": {}}),
        ("part.colour", {"part": {"size": 1.0, "colour": 1}}),
        ("float", {"free": {"x": [math.nan]}}),
        ("extra", {"extra": 1}),
        ("key", {"key": "../../etc"}),
        ("key", {"key": 7}),
        ("files", {"files": ["/etc/passwd"]}),
        ("files", {"files": ["attacked/../../x.png"]}),
        ("model", {"model": ["m"]}),
        ("schema", {"schema": SCHEMA - 1}),
        ("schema", {"schema": str(SCHEMA)}),
        ("schema", {"schema": None}),
        ("record", {"record": "unheard-of"}),
        ("record", {"record": ["samples"]}),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(place, changed):
    with pytest.raises(ValueError, match=re.escape(place)):
        read_record(line(**changed), KINDS_READ)


@pytest.mark.parametrize("name", ["key", "model", "width", "seed", "figure", "schema", "record"])
def test_a_missing_value_is_refused_with_its_name(name):
    content = line()
    del content[name]
    with pytest.raises(ValueError, match=name):
        read_record(content, KINDS_READ)


@settings(max_examples=150)
@given(st.sampled_from([*line(), "another"]), JSON)
def test_any_value_in_place_of_any_field_is_read_or_refused(name, value):
    try:
        record = read_record(line(**{name: value}), KINDS_READ)
    except ValueError:
        return
    assert all(math.isfinite(v) for v in dataclasses.asdict(record).values() if isinstance(v, float))
    json.dumps(record.as_line(), allow_nan=False)
    assert read_record(json.loads(json.dumps(record.as_line())), KINDS_READ) == record


def test_a_name_that_is_no_valid_text_reads_back():
    odd = dataclasses.replace(WHOLE, image="caf\udce9", model="m\udcff")
    assert read_record(json.loads(json.dumps(odd.as_line())), KINDS_READ) == odd


def test_a_record_cannot_be_made_with_a_key_that_is_none():
    with pytest.raises(ConfigError, match="key"):
        dataclasses.replace(WHOLE, key="g" * 24)


def test_keys_depend_on_every_part():
    assert len({record_key("a", 1), record_key("a", 2), record_key("b", 1), record_key("a", "1"), record_key("a")}) == 5


def test_columns_of_every_type():
    found = {column.name: column.kind for column in columns(Sample)}
    assert {name: found[name] for name in ("figure", "whole", "yes", "named", "listed", "part", "free", "files")} == {
        "figure": "DOUBLE", "whole": "BIGINT", "yes": "BOOLEAN", "named": "JSON", "listed": "JSON", "part": "JSON",
        "free": "JSON", "files": "JSON",
    }  # fmt: skip


@pytest.mark.parametrize("kind", RECORDS.values(), ids=list(RECORDS))
def test_every_field_of_every_record_is_documented(kind):
    assert [column.name for column in columns(kind)] == [field.name for field in dataclasses.fields(kind)]
    assert all(len(column.text) > 4 for column in columns(kind))


def test_columns_of_one_name_have_one_type_in_all_views():
    kinds = {}
    for view, record in RECORDS.items():
        for column in columns(record):
            assert kinds.setdefault(column.name, (column.kind, view))[0] == column.kind, (column.name, view)


def test_every_record_belongs_to_a_kind():
    assert list(RECORDS.values()) == list(dict.fromkeys(r for kind in KINDS.values() for r in kind.records))
