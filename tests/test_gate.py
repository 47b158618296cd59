"""Gates: bounds on the figures of studies, as continuous integration reads them."""

import dataclasses
import math
from xml.etree import ElementTree

import pytest
from test_cli import fails, run

from resolute import ConfigError, OutputError
from resolute.cli.gating import Gates
from resolute.images import sample_image, write_png
from resolute.studies.certification import Certification
from resolute.studies.gate import check_gates, gates_table, parse_gate, pass_gates, write_junit
from resolute.studies.grid import Grid
from resolute.studies.record import Record, record_key
from resolute.studies.results import Measured, Quantity, Results
from resolute.studies.study import Compared, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen(Record):
    """A record with one figure."""

    view = "seen"

    attack: str
    level: str
    value: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked(Study, Compared):
    """A study of such records."""

    kind = "asked"
    records = (Seen,)
    worst_of = ("attack",)
    name: str = "asked"

    def cells(self):
        return []

    def answer(self, cells, bench, progress):
        return []

    def results(self, records):
        return Results([], [])

    def quantities(self, records):
        proven = Quantity("certified PSNR", "dB", unknown_worst=True)
        return [Quantity("attacked PSNR", "dB"), Quantity("spread", lower_better=True), proven]

    def measured(self, record):
        setting = {"model": record.model, "attack": record.attack, "budget": record.level}
        return Measured(setting, dict.fromkeys(("attacked PSNR", "spread", "certified PSNR"), record.value))


def seen(**facts):
    about = {"weights": "", "pixels": "", "width": 1, "height": 1, "seed": 0, "seconds": 0.0}
    return Seen(key=record_key(*facts.values()), **about, **facts)


RECORDS = [
    seen(
        model=model, image=image, attack=attack, level=level,
        value=value + 10 * (model == "bicubic") - 5 * (level == "8/255"),
    )
    for model in ("net", "bicubic")
    for level in ("4/255", "8/255")
    for image, attack, value in (("a", "FDA", 20.0), ("a", "PGD", 22.0), ("b", "FDA", 30.0), ("b", "PGD", 26.0))
]  # fmt: skip


def values(text, records=RECORDS):
    return [(one.subject, one.value, one.passed) for one in pass_gates(Asked(), records, [parse_gate(text)])]


@pytest.mark.parametrize(
    ("text", "expected", "passed"),
    [
        ("attacked-psnr@4/255=23", 23.0, True),  # the worst attack on each image: 20 and 26
        ("attacked-psnr@4/255=23.01", 23.0, False),
        ("attacked-psnr@budget=8/255=10", 18.0, True),
        ("Attacked PSNR@fda,4/255=25", 25.0, True),
        ("attacked_psnr=20.5", 20.5, True),  # over budgets the mean, since nobody but an attacker takes the worst
        ("spread@4/255=26", 26.0, True),  # worst attacks 22 and 30
        ("spread@4/255=25.9", 26.0, False),
    ],
)
def test_the_worst_attack_and_the_mean_over_images(text, expected, passed):
    assert values(text) == [("net", pytest.approx(expected), passed)]


def test_bicubic_counts_where_nothing_else_does():
    alone = [one for one in RECORDS if one.model == "bicubic"]
    assert values("attacked-psnr@4/255=30", alone) == [("bicubic", 33.0, True)]


def test_an_infinite_figure_keeps_its_bound_and_hides_no_other():
    equal = [dataclasses.replace(one, value=math.inf) for one in RECORDS]
    assert values("attacked-psnr@4/255=26", equal) == [("net", math.inf, True)]
    half = [dataclasses.replace(one, value=math.inf) if one.image == "a" else one for one in RECORDS]
    (passage,) = pass_gates(Asked(), half, [parse_gate("attacked-psnr@4/255=26.5")])
    assert (passage.value, passage.images, passage.equal, passage.passed) == (26.0, 2, 1, False)
    (cells,) = gates_table([passage]).rows
    assert (cells.cells[4].value, cells.cells[4].note) == (2, "1 infinite")
    # Of what should be low, infinity is the worst.
    assert values("spread@4/255=30", half) == [("net", math.inf, False)]


def test_where_nothing_is_proven_no_bound_is_kept():
    unmoved = [dataclasses.replace(one, value=None) if one.image == "a" else one for one in RECORDS]
    assert values("attacked-psnr@4/255=26", unmoved) == [("net", 26.0, True)]
    assert values("certified-psnr@4/255=0", unmoved) == [("net", -math.inf, False)]


@pytest.mark.parametrize("text", ["", "psnr", "=3", "psnr=high", "psnr=nan", "psnr=1e3", "@4/255=2"])
def test_what_is_no_gate_is_said(text):
    with pytest.raises(ConfigError):
        parse_gate(text)


@pytest.mark.parametrize("text", ["sharpness=3", "attacked-psnr@2/255=3", "attacked-psnr@severity=1=3"])
def test_what_is_not_there_is_said(text):
    with pytest.raises(ConfigError):
        values(text)
    with pytest.raises(ConfigError):
        pass_gates(Asked(), [dataclasses.replace(one, value=None) for one in RECORDS], [parse_gate("spread=1")])


def test_studies_know_before_they_run():
    study = Certification(images=("photo.jpg",))
    check_gates(study, [parse_gate("certified-width=5")])
    with pytest.raises(ConfigError):
        check_gates(study, [parse_gate("attacked-psnr=5")])
    assert Grid.worst_of == ("attack",)


def test_junit_holds_odd_names_and_counts_failures(tmp_path):
    odd = [dataclasses.replace(one, model="<net> & \x00\ud800") for one in RECORDS if one.model == "net"]
    gates = [parse_gate("attacked-psnr@4/255=23"), parse_gate("spread@4/255=1")]
    passages = pass_gates(Asked(), odd, gates)
    write_junit(passages, tmp_path / "junit.xml", "asked")
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert [case.get("classname") for case in suite] == ["<net> & ??"] * 2
    assert [len(case) for case in suite] == [0, 1]
    assert [cells.cells[-1].value for cells in gates_table(passages).rows] == [True, False]


def test_as_typed(tmp_path):
    write_png(tmp_path / "coffee.png", sample_image("coffee")[:, 100:148, 100:148])
    arguments = ("survive", "bicubic", "--images", tmp_path, "--corruption", "noise", "--out", tmp_path / "run")
    files = ("--junit", tmp_path / "junit.xml", "--summary", tmp_path / "summary.md")
    assert run(*arguments, "--fail-under", "psnr@severity=1=10", *files)[0] == 0
    told = fails(13, *arguments, "--fail-under", "psnr@noise=10", "--fail-under", "psnr@5=60", *files)
    assert "psnr@5=60" in told
    assert "psnr@noise" not in told
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("failures") == "1"
    assert "bicubic has" in (tmp_path / "summary.md").read_text()
    fails(5, *arguments, "--fail-under", "attacked-psnr=3")
    fails(5, *arguments, "--junit", tmp_path / "junit.xml")


def test_a_summary_and_a_name_of_any_bytes_are_written_all_the_same(tmp_path):
    (tmp_path / "summary.md").write_bytes(b"\xff before\n")
    study = Asked(name="odd \uffff")
    gates = Gates(("attacked-psnr=1",), tmp_path / "gates.xml", tmp_path / "summary.md")
    gates.passed(study, RECORDS)
    assert "before" in (tmp_path / "summary.md").read_text()
    assert ElementTree.parse(tmp_path / "gates.xml").getroot()[0].get("name") == "resolute odd ?"


@pytest.mark.parametrize("option", ["--junit", "--summary"])
def test_files_that_cannot_be_written_are_refused_before_anything_is_run(option, tmp_path):
    (tmp_path / "file").touch()
    for name in (".", "file/gates"):
        gates = Gates(("attacked-psnr=1",), **{option[2:]: tmp_path / name})
        with pytest.raises(OutputError, match=option):
            gates.parsed(Asked())


def test_one_file_for_both_is_refused(tmp_path):
    gates = Gates(("attacked-psnr=1",), tmp_path / "gates", tmp_path / "no" / ".." / "gates")
    with pytest.raises(ConfigError, match="--summary"):
        gates.parsed(Asked())


def test_help_tells_the_form_of_a_gate():
    assert "QUANTITY[@SETTING]=BOUND" in "".join(run("survive", "--help-all")[1].split())
