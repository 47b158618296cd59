"""The experiments of the first paper: planned from data sets by name, short where asked, judged by computation."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from small import edit, grid, tiny
from test_report import Page
from test_studies import record
from typer.testing import CliRunner

from resolute.attacks.registry import AttackTable
from resolute.chart import look_of
from resolute.cli.app import app
from resolute.engine.running import Machine, run
from resolute.engine.store import Store
from resolute.errors import ConfigError, ImageError
from resolute.images import sample_image, write_png
from resolute.report import write_report
from resolute.report.reading import read_source
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Claim, check, summary_of
from resolute.studies.datasets import DATASETS, find_photos
from resolute.studies.grid_tables import grid_tables
from resolute.studies.kinds import read_study
from resolute.studies.pairs import families
from resolute.studies.quick import Quick
from resolute.studies.steepness import CleverRecord, CleverTable

PAPER = (
    "models", "pictures", "features", "ablation", "lambda", "layer", "delta", "adversarial-training",
    "random-resizing",
)  # fmt: skip


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Return a folder of data sets, laid out as releases are, and named by RESOLUTE_DATA."""
    folder = tmp_path / "data"
    for place, names in (("Set5", ("baby", "bird")), ("sr_test/B100/HR", ("3096", "8023", "baby"))):
        for number, name in enumerate(names):
            write_png(folder / place / f"{name}.png", sample_image("coffee")[:, number : number + 32, :32])
    write_png(folder / "sr_test/B100/LRbicx4/3096x4.png", torch.zeros(3, 8, 8))
    monkeypatch.setenv("RESOLUTE_DATA", str(folder))
    return folder


def test_data_sets_are_found_by_name(root):
    photos = find_photos(["set5", "bsd100"])
    assert [(photo.dataset, photo.name) for photo in photos] == [
        ("set5", "baby"), ("set5", "bird"), ("bsd100", "3096"), ("bsd100", "8023"), ("bsd100", "baby-2"),
    ]  # fmt: skip
    assert [photo.name for photo in find_photos(["set5", "bsd100"], every=2)] == ["baby", "3096", "baby-2"]
    mine = find_photos([f"mine={root / 'Set5'}", str(root / "Set5" / "bird.png")])
    assert [(photo.dataset, photo.name) for photo in mine] == [("mine", "baby"), ("mine", "bird"), ("", "bird-2")]


def test_a_set_is_found_inside_a_folder_as_below_resolute_data(root):
    folder = root / "sr_test" / "B100"
    assert [photo.path for photo in find_photos([f"bsd100={folder}"], scale=4)] == [
        photo.path for photo in find_photos(["bsd100"], scale=4)
    ]


def test_a_missing_data_set_says_what_to_put_where(root, monkeypatch):
    with pytest.raises(ImageError, match=r"set14 .*set14=FOLDER"):
        find_photos(["set14"])
    with pytest.raises(ImageError, match="cannot find"):
        find_photos(["set14=nowhere"])
    monkeypatch.delenv("RESOLUTE_DATA")
    with pytest.raises(ImageError, match=r"RESOLUTE_DATA.*--quick"):
        find_photos(["set14"])


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_released_sets_are_complete(name, data_dir, monkeypatch):
    monkeypatch.setenv("RESOLUTE_DATA", str(data_dir))
    assert len(find_photos([name])) == {"set5": 5, "set14": 14, "bsd100": 100}[name]


@pytest.mark.parametrize("name", PAPER)
def test_every_experiment_of_the_paper_is_a_study(name):
    study = read_study(name)
    assert study.question.endswith("ACCV 2020.")
    assert study.expected
    assert {"set5", "bsd100"} <= set(study.images) <= {"set5", "set14", "bsd100"}
    labels = {table.name for table in study.attacks}
    for claim in study.expected:
        assert set(claim.names) <= (set(study.models) if claim.over == "model" else labels), claim.says
        assert set(claim.attacks) <= {*labels, "worst case"}
        assert set(claim.levels) <= set(study.epsilons)
        assert claim.quantity != "clever" or study.clever is not None
    quick = study.quickly()
    assert (quick.name, quick.images, quick.quick) == (f"{name}-quick", ("samples",), None)
    assert len(quick.subjects()) < 4
    assert len(quick.epsilons) <= 3
    assert quick.clever is None or quick.clever.samples <= 16


def test_the_paper_is_attacked_with_its_own_settings():
    study = read_study("models")
    assert study.epsilons == (1, 2, 4, 8, 16, 32)
    for table in study.attacks:
        assert table.build(4 / 255).steps == 50
    assert read_study("ablation").clever == CleverTable(samples=1024, radius=1, ascents=4)


def test_the_quick_form_lightens_attacks_of_every_kind():
    quick = Quick(steps=3, restarts=2, queries=10)
    assert quick.lighten(AttackTable(kind="pgd", restarts=9)) == AttackTable(kind="pgd", steps=3, restarts=2)
    assert quick.lighten(AttackTable(kind="fgsm")) == AttackTable(kind="fgsm")
    assert quick.lighten(AttackTable(kind="ifgsm", steps=2)).options == {"steps": 2}
    assert quick.lighten(AttackTable(kind="square")).options == {"queries": 10}
    assert quick.lighten(AttackTable(kind="transfer", source="edsr-s")).options["attack"].options == {"steps": 3}
    inside = AttackTable(kind="worst", attacks=("pgd", AttackTable("square", share=0.5)))
    assert quick.lighten(inside).options["attacks"] == (
        AttackTable("pgd", steps=3),
        AttackTable("square", queries=10, share=0.5),
    )
    with pytest.raises(ConfigError, match="quick"):
        read_study("bsd100").quickly()


# What was published beside what is here.

ABOVE = Claim(says="a gains", where="here", quantity="sr_psnr", order=(("a",), ("b",)))
HIGH = [record("a", image, value) for image, value in (("x", 35.0), ("y", 36.0), ("z", 35.5))]
LOW = [record("b", image, value) for image, value in (("x", 30.0), ("y", 31.5), ("z", 30.6))]


def renamed(records, names):
    return [dataclasses.replace(r, model=names[r.model]) for r in records]


def test_agreement_is_computed_from_paired_differences():
    assert check([ABOVE], HIGH + LOW)[0].verdict == "agrees"
    assert check([ABOVE], renamed(HIGH + LOW, {"a": "b", "b": "a"}))[0].verdict == "disagrees"
    mixed = [dataclasses.replace(r, sr_psnr=28.0) if r.model == "a" and r.image == "x" else r for r in HIGH + LOW]
    assert check([ABOVE], [*mixed[:1], *[r for r in mixed if r.image == "x"]])[0].verdict == "undecided"
    assert check([ABOVE], HIGH)[0].verdict == "not measured"
    here = check([ABOVE], HIGH + LOW)[0].settings[0].here
    assert here == {"a": pytest.approx(35.5), "b": pytest.approx(30.7)}


@pytest.mark.parametrize(
    ("relation", "names", "verdict"),
    [
        ("not above", ("b", "a"), "agrees"),
        ("not above", ("a", "b"), "disagrees"),
        ("not below", ("a", "b"), "agrees"),
        ("not below", ("b", "a"), "disagrees"),
        ("similar", ("a", "b"), "disagrees"),
    ],
)
def test_relations(relation, names, verdict):
    claim = dataclasses.replace(ABOVE, relation=relation, order=tuple((name,) for name in names))
    assert check([claim], HIGH + LOW)[0].verdict == verdict


def test_similar_is_within_its_tolerance():
    claim = dataclasses.replace(ABOVE, relation="similar", tolerance=6.0)
    assert check([claim], HIGH + LOW)[0].verdict == "agrees"


def test_numbers_are_compared_by_their_order_and_need_all_names():
    claim = Claim(says="", where="", quantity="clean_psnr_y", values={"a": 27.5, "b": 26.4})
    records = [dataclasses.replace(r, clean_psnr_y=29.0 if r.model == "a" else 28.0) for r in HIGH + LOW]
    [found] = check([claim], records)
    assert (found.verdict, len(found.settings)) == ("agrees in sign; 91 % of the published change", 1)
    assert check([dataclasses.replace(claim, values={"a": 26.4, "b": 27.5})], records)[0].verdict == "disagrees"


def test_a_statement_holds_only_where_it_was_made():
    harder = [dataclasses.replace(r, attack="fda", model={"a": "b", "b": "a"}[r.model]) for r in HIGH + LOW]
    [found] = check([ABOVE], [*HIGH, *LOW, *harder])
    assert re.findall(r"\d", found.verdict) == ["1", "1", "2"]
    assert check([dataclasses.replace(ABOVE, attacks=("ifgsm",))], [*HIGH, *LOW, *harder])[0].verdict == "agrees"
    assert check([dataclasses.replace(ABOVE, levels=(8,))], HIGH + LOW)[0].verdict == "not measured"
    over = Claim(says="", where="", quantity="sr_psnr", over="attack", order=(("fda",), ("ifgsm",)))
    [found] = check([over], [*HIGH, *LOW, *harder])
    assert {setting.other: setting.verdict for setting in found.settings} == {"a": "disagrees", "b": "agrees"}
    worst = dataclasses.replace(ABOVE, attacks=("worst case",))
    assert len(check([worst], [*HIGH, *LOW, *harder])[0].settings) == 1


def test_the_summary_counts_what_was_found():
    opposite = dataclasses.replace(ABOVE, order=(("b",), ("a",)))
    elsewhere = dataclasses.replace(ABOVE, levels=(32,))
    text = summary_of(check([ABOVE, opposite, elsewhere], HIGH + LOW))
    assert re.findall(r"\d", text) == ["2", "1", "1", "1"]
    assert "None" in summary_of(check([elsewhere], HIGH + LOW))


# Many variants of one model.


def test_variants_belong_to_the_plainest_model():
    defends = {"a-adv": "a", "a-adv-entropy": "a-adv", "a+mix=0.5": "a", "b-c": "b"}
    assert [(f.plain, f.variants) for f in families([*defends, "a", "b", "bicubic"], defends)] == [
        ("a", ["a-adv", "a-adv-entropy", "a+mix=0.5"]), ("b", ["b-c"]),
    ]  # fmt: skip


def test_a_grid_has_a_row_a_model_and_the_gain_over_the_plain_one():
    records = renamed(HIGH + LOW, {"a": "b-x", "b": "b"}) + renamed(HIGH, {"a": "bicubic"})
    (table, *_) = grid_tables(records, {"b-x": "b"})
    assert [(line.cells[0].value, line.indent) for line in table.rows] == [
        ("b", False), ("b-x", True), ("bicubic", False),
    ]  # fmt: skip
    assert [column.name for column in table.columns] == ["model", "clean PSNR", "4/255"]
    cell = table.rows[1].cells[2]
    assert cell.value == pytest.approx(35.5)
    assert cell.change.mean == pytest.approx(4.8)


def test_no_two_of_many_models_look_alike():
    models = [f"m{number}" for number in range(40)]
    assert len({look_of(model, models) for model in models}) == 40


# From the run to the page.


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished study of two data sets and four models, with CLEVER and claims; not to be changed."""
    folder = tmp_path_factory.mktemp("paper")
    study = grid(folder, models=("tiny", "tiny-entropy", "tiny-adv", "bicubic"))
    for name in ("rocket", "astronaut"):
        write_png(folder / "more" / f"{name}.png", sample_image(name)[:, 100:148, 200:248])
    claims = (
        Claim(says="Entropy <helps>", where="fig. 1", quantity="sr_psnr", order=(("tiny-entropy",), ("tiny",))),
        Claim(says="And the opposite", where="fig. 1", quantity="sr_psnr", order=(("tiny",), ("tiny-entropy",))),
        Claim(says="Numbers", where="table 1", quantity="clean_psnr_y", values={"tiny": 27.54, "bicubic": 25.96}),
        Claim(says="Steep", where="fig. 2", quantity="clever", order=(("tiny",), ("bicubic",))),
    )
    plan = dataclasses.replace(
        study,
        models=(*study.models[:3], f"{study.models[0]}+mix=0.5", "bicubic"),
        images=(f"set5={folder / 'photos'}", f"mine={folder / 'more'}"),
        clever=CleverTable(samples=2, ascents=1),
        question="Does it?",
        expected=claims,
    )
    run(plan, folder / "run", Machine())
    return folder / "run"


def parts(folder):
    """Return the attacks and the indices of a folder, and its study."""
    source = read_source(folder)
    attacks = [one for one in source.records if isinstance(one, AttackRecord)]
    return attacks, [one for one in source.records if isinstance(one, CleverRecord)], source.study


def test_records_and_indices_know_their_data_set(finished):
    records, indices, _ = parts(finished)
    assert {record.dataset for record in records} == {"set5", "mine"}
    assert all(record.phi_std > 0 and record.phi_moved > 0 for record in records)
    assert len(indices) == 5 * 4
    assert all(index.index >= index.typical > 0 for index in indices)
    assert all(index.climbed > 0 for index in indices)
    assert "tiny+mix=0.5" in {record.model for record in records}


def test_a_rerun_takes_no_index_twice(finished, tmp_path):
    study = parts(finished)[2]
    small = dataclasses.replace(study, models=study.models[:1], epsilons=(4,), attacks=study.attacks[:1])
    done: list[float] = []
    run(small, tmp_path, Machine(), progress=lambda number, _total, _title: done.append(number))
    lines = (tmp_path / "records.jsonl").read_text()
    assert len(lines.splitlines()) == 4 + 4
    assert done == sorted(done)
    run(small, tmp_path, Machine())
    assert (tmp_path / "records.jsonl").read_text() == lines


def test_the_page_puts_the_published_beside_its_own(finished, tmp_path):
    page = Page(write_report([finished], tmp_path / "report.html"))
    assert "Does it?" in page.words
    assert "tbody" not in page.words
    assert "Entropy <helps>" in page.words
    assert "27.54, bicubic 25.96" in page.words
    attacks, clever, study = parts(finished)
    told = {}
    for dataset in ("set5", "mine"):
        ours = [record for record in attacks if record.dataset == dataset]
        findings = check(study.expected, ours, [index for index in clever if index.dataset == dataset])
        assert summary_of(findings) in page.words
        assert all(finding.settings for finding in findings)
        # One of two opposites cannot hold where the other does.
        first, second = findings[:2]
        assert not (first.verdict == "agrees" and second.verdict == "agrees")
        told[dataset] = [finding.verdict for finding in findings]
    claims = page.rows[1:5]
    for place, cells in enumerate(claims):
        assert [told["set5"][place] in cells[1], told["mine"][place] in cells[2]] == [True, True]
    assert {"overview-0", "set1-budget-0", "clever-0", "set1-clever-0"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.data["charts"]) <= set(page.ids)
    assert {len(frames) for frames in page.data["frames"].values()} == {2}
    words = " ".join(page.words.split())
    for convention in ("starts within 1e-3/255", "2 uniform draws", "gradients pass straight through"):
        assert convention in words
    assert page.values("tiny+mix=0.5", "Set5")


def test_the_markdown_has_the_same(finished, tmp_path):
    text = write_report([finished], tmp_path / "page.md").read_text()
    for part in ("| published | here, Set5 | here, mine |", "CLEVER", "tiny+mix=0.5", "Entropy &lt;helps>"):
        assert part in text


def test_the_summary_figure_has_every_model_once(finished, tmp_path):
    page = Page(write_report([finished], tmp_path / "report.html"))
    for chart in ("overview-0", "set1-overview-1"):
        for figure in page.data["frames"][chart].values():
            names = [trace["name"] for trace in figure["data"] if trace["mode"] == "markers"]
            assert names == ["tiny", "tiny-entropy", "tiny-adv", "tiny+mix=0.5", "bicubic"]
            looks = {(t["marker"]["color"], t["marker"]["symbol"]) for t in figure["data"] if t["mode"] == "markers"}
            assert len(looks) == 5


def test_the_worst_of_every_group_of_models_is_shown(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("resolute.report.page.MAX_CASES", 3)
    page = Page(write_report([finished], tmp_path / "report.html"))
    shown = [case["filters"]["models"] for case in page.data["cases"]]
    assert sorted(shown) == ["tiny | tiny+mix=0.5", "tiny | tiny-adv", "tiny | tiny-entropy"]


def test_names_of_models_and_images_stay_apart_in_indices(finished, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("records.jsonl", "study.json"):
        (folder / name).write_text((finished / name).read_text())
    edit(folder, lambda r: dataclasses.replace(r, model=r.model.replace("bicubic", "<b>")))
    page = Page(write_report([folder], tmp_path / "report.html"))
    assert "not measured" in page.words


# On the command line.


def test_quick_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.delenv("RESOLUTE_DATA", raising=False)
    table = tmp_path / "mine.toml"
    model = tiny(tmp_path / "tiny.safetensors", "tiny")
    table.write_text(
        f'name = "mine"\nmodels = ["{model}", "bicubic"]\nimages = ["bsd100"]\nquestion = "Which?"\n'
        '[quick]\nevery = 4\ncrop = 48\nepsilons = [4]\nsteps = 2\n[[attacks]]\nkind = "ifgsm"\n'
        '[[expected]]\nsays = "Fragile"\nwhere = "fig. 3"\nquantity = "sr_psnr"\norder = [["bicubic"], ["tiny"]]\n'
    )
    result = CliRunner().invoke(app, ["study", str(table), "--out", str(tmp_path / "whole")])
    assert result.exit_code != 0
    assert not (tmp_path / "whole" / "records.jsonl").exists()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["study", str(table), "--quick", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "runs/mine-quick/report.html" in result.output
    records = Store(tmp_path / "runs" / "mine-quick").read()
    assert {(r.dataset, r.width) for r in records} == {("samples", 12)}
    assert len(records) == 2 * 2
    facts = json.loads((tmp_path / "runs" / "mine-quick" / "study.json").read_text())
    assert facts["study"]["attacks"][0]["options"]["steps"] == 2
    assert "2 steps of" in facts["facts"]["I-FGSM"]


def test_a_study_of_another_kind_has_no_quick_form():
    assert CliRunner().invoke(app, ["study", "metric-as-loss", "--quick"]).exit_code != 0


def test_draws_behind_clever_can_be_set_where_there_is_such_an_index(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("resolute.cli.studying.plan_of", seen.append)
    monkeypatch.setattr("resolute.cli.studying.announce", lambda *_: None)
    monkeypatch.setattr("resolute.cli.studying.run_study", lambda *_: None)
    result = CliRunner().invoke(app, ["study", "ablation", "--quick", "--samples", "3", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert seen[0].clever.samples == 3
    assert CliRunner().invoke(app, ["study", "models", "--quick", "--samples", "3"]).exit_code == 5
