"""One's own code by its file: attacks, objectives, metrics and data sets through one door."""

import json
import pickle
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner
from warm import Typed, warm

from resolute import Machine, load, load_scorer, run
from resolute.attacks import Job, attack_all
from resolute.attacks.registry import AttackTable
from resolute.cli import app
from resolute.engine.running import plan_of
from resolute.engine.workers import packed, unpacked
from resolute.errors import CheckpointError, ConfigError, ImageNote
from resolute.images import from_uint8, sample_image, to_uint8, write_png
from resolute.of_file import own_code
from resolute.report.reading import read_source
from resolute.studies.certification import Certification
from resolute.studies.datasets import find_photos
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study

MINE = """
import dataclasses
from pathlib import Path

from resolute import Ascent, GradientAttack, Linf, sample_image

with (Path(__file__).parent / "runs.txt").open("a") as file:
    file.write("run\\n")


@dataclasses.dataclass(frozen=True)
class Edges:
    weight: float = 1.0

    def bind(self, model, clean):
        return lambda x: self.weight * model(x).diff().abs().mean(dim=(1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourCast(GradientAttack):
    steps: int = 2
    reach: float = 2.0

    def ascent(self):
        size = self.reach * self.epsilon / self.steps
        return Ascent(objective=Edges(), ball=Linf(self.epsilon), steps=self.steps, step_size=size, start="zero")


@dataclasses.dataclass(frozen=True)
class Fails:
    def bind(self, model, clean):
        raise ValueError("not today")


def score(x):
    return x.std(dim=(1, 2, 3))


score.low, score.high = 0.0, 1.0


class Brightness:
    lower_better = True

    def __call__(self, x):
        return x.mean(dim=(1, 2, 3))


def photos():
    for at in (100, 120):
        yield sample_image("coffee")[:, at : at + 32, 100:132]


seven = 7
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "code" / "mine.py"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


def grid(path, attacks=(), images=()):
    return Grid(
        name="own", models=("bicubic",), attacks=attacks or (AttackTable(f"{path}:ColourCast"),), epsilons=(4,),
        images=images or (f"{path}:photos",),
    )  # fmt: skip


def runs(path):
    return len((path.parent / "runs.txt").read_text().splitlines())


def test_an_attack_is_built_with_its_options_and_inside_others(mine):
    kind = f"{mine}:ColourCast"
    attack = AttackTable.typed(["reach=1.5"], kind).build(4 / 255)
    assert (type(attack).__name__, attack.reach, AttackTable(kind).name) == ("ColourCast", 1.5, "mine.py:ColourCast")
    around = AttackTable("transfer", source="bicubic", attack=kind).build(4 / 255)
    assert around.attack == AttackTable(kind).build(4 / 255)
    worst = AttackTable.typed([f"attacks={kind},pgd"], "worst").build(4 / 255)
    assert [type(one).__name__ for one in worst.attacks] == ["ColourCast", "PGD"]
    assert runs(mine) == 1
    with pytest.raises(ConfigError, match="reach"):
        AttackTable(kind, reech=1)


def test_an_objective_is_climbed_with_its_own_options(mine):
    attack = AttackTable("pgd", objective=f"{mine}:Edges", weight=3.0, steps=2).build(4 / 255)
    assert (type(attack.objective).__name__, attack.objective.weight) == ("Edges", 3.0)


@pytest.mark.parametrize(("name", "lower"), [("score", False), ("Brightness", True)])
def test_a_metric_is_a_function_or_a_class(mine, name, lower):
    metric = load_scorer(f"{mine}:{name}")
    assert (metric.card.name, metric.lower_better) == (name, lower)
    assert metric(torch.rand(2, 3, 8, 8)).shape == (2,)
    before = metric.card.sha256
    mine.write_text(mine.read_text() + "# edited\n")
    assert load_scorer(f"{mine}:{name}").card.sha256 not in (before, "")
    (cell,) = Certification(images=(f"{mine}:photos",), metric=f"{mine}:{name}", samples=2).cells()[:1]
    assert cell.title.startswith("photos-1")


def test_a_data_set_yields_images_of_any_kind_or_paths(mine):
    pixels = to_uint8(sample_image("coffee")[:, :16, :20])
    Image.fromarray(pixels).save(mine.parent / "a.png")
    mine.write_text(f"""
from PIL import Image
from resolute.images import read_image, to_uint8
PATH = {str(mine.parent / "a.png")!r}
def paths(): return [PATH]
def folder(): return {str(mine.parent)!r}
def tensors(): return [read_image(PATH)]
def arrays(): return [to_uint8(read_image(PATH))]
def pillow(): yield Image.open(PATH)
""")
    for name in ("paths", "folder", "tensors", "arrays", "pillow"):
        (photo,) = find_photos([f"{mine}:{name}"])
        assert (photo.dataset, np.array_equal(to_uint8(photo.read()), pixels)) == (name, True)
    (named,) = find_photos([f"set={mine}:tensors"])
    assert (named.dataset, named.name) == ("set", "set-1")


@pytest.mark.parametrize("order", [1, -1])
def test_a_data_set_yields_pairs(mine, order):
    mine.write_text(f"""
import torch
class Pairs:
    def __iter__(self):
        yield (torch.zeros(3, 8, 8), torch.ones(3, 32, 32))[::{order}]
""")
    with pytest.warns(ImageNote, match="1 pair"):
        (subject,) = grid(mine, images=(f"{mine}:Pairs",), attacks=(AttackTable("fgsm"),)).subjects()
    assert (subject.low.shape, subject.truth.shape, float(subject.truth.mean())) == ((1, 3, 8, 8), (1, 3, 32, 32), 1.0)


WRONG = [
    ("import nothing_of_that_name", "ModuleNotFoundError.*mine.py, line 2"),
    ("x = 1\ny = x.gone", "AttributeError.*mine.py, line 3"),
    ("def photos(:", "SyntaxError.*mine.py, line 2"),
    ("def photo(): ...\ndef other(): ...", "no photos; it defines photo, other"),
    ("def photos(): return 1 / 0", "ZeroDivisionError.*mine.py, line 2"),
    ("def photos(): return 7", "an object of type int"),
    ("def photos(): return [7]", "type int"),
    ("import torch\ndef photos(): return [torch.ones(3, 4, 4) * 255]", "divide by 255"),
    ("def photos(): return []", "no image"),
]


@pytest.mark.parametrize(("code", "told"), WRONG)
def test_what_is_wrong_is_told_in_one_line(mine, code, told):
    mine.write_text(f"\n{code}\n")
    with pytest.raises(ConfigError, match=told) as caught:
        find_photos([f"{mine}:photos"])
    assert "\n" not in str(caught.value)


def test_what_is_none_of_its_kind_is_refused(mine):
    for use in (
        lambda: AttackTable(f"{mine}:score"),
        lambda: AttackTable("pgd", objective=f"{mine}:seven"),
        lambda: load_scorer(f"{mine}:seven"),
        lambda: AttackTable(f"{mine.parent / 'gone.py'}:X"),
    ):
        with pytest.raises(ConfigError, match=r"mine\.py:s|gone\.py"):
            use()
    mine.write_text("from resolute.models.registry import Bicubic as Model")
    with pytest.raises(CheckpointError, match="load it with load"):
        load_scorer(f"{mine}:Model")


@pytest.mark.parametrize("error", ["ValueError: not today", "SystemExit: 0"])
def test_code_that_fails_in_a_run_is_told_in_one_line(mine, error):
    mine.write_text(MINE.replace('ValueError("not today")', error.replace(": ", "('") + "')"))
    study = grid(mine, attacks=(AttackTable("pgd", objective=f"{mine}:Fails"),))
    line = MINE[: MINE.index('raise ValueError("not')].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"^mine\.py, line {line}: {error}$"):
        run(study, mine.parent / "out")


@pytest.mark.parametrize(
    ("line", "other", "told"),
    [
        ("Linf(self.epsilon)", "Linf(9 * self.epsilon)", "ColourCast goes beyond its budget"),
        ("mean(dim=(1, 2, 3))", "mean()", r"Edges returns float32 of shape \(\)"),
        ("mean(dim=(1, 2, 3))", "mean(dim=(2, 3))[:, :1]", r"Edges returns float32 of shape \(1, 1\)"),
        ("mean(dim=(1, 2, 3))", "mean().item()", "Edges returns float "),
        ("return lambda x:", "lambda x:", "Edges returns .* NoneType"),
        ("model(x).diff()", "model(x).detach().diff()", "no gradient"),
    ],
)
def test_what_an_attack_or_an_objective_may_not_do_is_told_in_one_line(mine, line, other, told):
    mine.write_text(MINE.replace(line, other, 1))
    attack = AttackTable(f"{mine}:ColourCast").build(4 / 255)
    image = sample_image("coffee")[None, :, :16, :16]
    for use in (lambda: attack(load("edsr-xs"), image), lambda: attack_all(load("edsr-xs"), [Job(attack, image)])):
        with pytest.raises(ConfigError, match=told) as caught:
            use()
        assert "\n" not in str(caught.value)


FOUND = """

@dataclasses.dataclass(frozen=True, kw_only=True)
class Found(Attack):
    def aim(self):
        return Edges(), Linf(self.epsilon)

    def search(self, task):
        return {}
"""


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("task.clean + 2 * self.epsilon, 1", "beyond its budget"),
        ("task.clean - self.epsilon, 1", r"clamp them to \[0, 1\]"),
        ("task.clean * float('nan'), 1", "beyond its budget"),
        ("task.clean[..., :5], 1", "the same shape"),
        ("task.clean", "no pair"),
    ],
)
def test_what_a_search_finds_is_held_to_the_budget(mine, found, told):
    mine.write_text(MINE.replace("import Ascent", "import Ascent, Attack") + FOUND.format(found))
    with pytest.raises(ConfigError, match=told):
        AttackTable(f"{mine}:Found").build(4 / 255)(load("bicubic", 2), torch.zeros(1, 3, 8, 8))


def test_an_attack_that_cannot_say_how_it_climbs_is_told_in_one_line(mine):
    mine.write_text(mine.read_text().replace("Linf(self.epsilon)", "Linf(self.gone)"))
    with pytest.raises(ConfigError, match=r"^mine\.py:ColourCast .*AttributeError.* \(mine\.py, line \d+\)$"):
        AttackTable(f"{mine}:ColourCast").build(4 / 255)


def test_an_edited_file_is_another_attack(mine):
    (mine.parent / "helper.py").write_text("VALUE = 1\n")
    mine.write_text("import helper\n" + MINE)
    (first, _), (again, _) = grid(mine).cells(), grid(mine).cells()
    assert first.key == again.key
    mine.write_text(mine.read_text().replace("reach: float = 2.0", "reach: float = 2.00"))
    (edited, _) = grid(mine).cells()
    assert repr(edited.attack) == repr(first.attack)
    assert edited.key != first.key
    climbed = grid(mine, attacks=(AttackTable("pgd", objective=f"{mine}:Edges"),))
    before = climbed.cells()[0].key
    mine.write_text(mine.read_text() + "\n")
    assert climbed.cells()[0].key != before
    assert "helper" not in sys.modules


def elsewhere(function, *arguments):
    """Call a function in a process that has imported none of the files here, and return its answer."""
    ours, theirs = warm.Pipe()
    process = warm.Process(target=answered, args=(theirs, function, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0
    return ours.recv()


def answered(answer, function, *arguments):
    answer.send(function(*arguments))


def hash_of(name):
    code = own_code(name)
    code.load()
    return code.sha256


def cells_in(path):
    return len(unpacked(path.read_bytes()))


def same(thing):
    return thing


def test_a_file_beside_it_counts_too(mine):
    keys = set()
    for value in (1, 2):
        (mine.parent / "helper.py").write_text(f"VALUE = {value}\n")
        mine.write_text("import helper\n" + MINE)
        keys.add(elsewhere(hash_of, f"{mine}:score"))
    assert len(keys) == 2


def test_a_file_that_lies_beside_a_study_is_found(mine, monkeypatch, tmp_path):
    path = mine.parent / "own.toml"
    path.write_text(
        'name = "own"\nmodels = ["bicubic"]\nimages = ["mine.py:photos"]\nepsilons = [4]\n[[attacks]]\n'
        'kind = "mine.py:ColourCast"\n[[attacks]]\nkind = "worst"\n'
        'attacks = [{ kind = "mine.py:ColourCast" }, "fgsm"]\n'
        '[[attacks]]\nkind = "pgd"\nobjective = "mine.py:Edges"\n'
    )
    monkeypatch.chdir(tmp_path)
    study = read_study("code/own.toml")
    assert [table.name for table in study.attacks] == ["mine.py:ColourCast", "worst", "pgd"]
    assert len(study.cells()) == 6
    path.write_text(path.read_text().replace("ColourCast", "ColorCast", 1))
    with pytest.raises(ConfigError, match=r"own\.toml, line.*ColourCast"):
        read_study("code/own.toml")


def test_its_classes_unpickle_in_another_process(mine):
    attack = AttackTable(f"{mine}:ColourCast").build(4 / 255)
    assert elsewhere(same, attack) == attack


def test_a_plan_brings_its_code_with_it(mine, tmp_path):
    study = grid(mine)
    (tmp_path / "plan").write_bytes(packed(plan_of(study)))
    mine.unlink()
    assert elsewhere(cells_in, tmp_path / "plan") == cells_in(tmp_path / "plan") == 2


def test_workers_find_the_same(mine):
    here = run(grid(mine), mine.parent / "here")
    there = run(grid(mine), mine.parent / "there", Machine(workers=2, device="cpu"))
    assert [record.figures() for record in here] == [record.figures() for record in there]
    assert "ColourCast(" in here[0].configuration
    assert "of code" in here[0].configuration


def test_a_report_runs_no_code(mine, tmp_path):
    out = tmp_path / "out"
    run(grid(mine), out)
    settings = json.loads((out / "study.json").read_text())
    kind = f"{mine}:ColourCast"
    # As a run writes it, and as somebody may write it who wants his code run.
    for attacks, code_of_exit in ((settings["study"]["attacks"], 0), ([{"kind": kind}], 5), ([kind], 5)):
        settings["study"]["attacks"] = attacks
        (out / "study.json").write_text(json.dumps(settings))
        before = runs(mine)
        code, stderr = Typed("report", out).ended(60)
        assert code == code_of_exit, stderr
        assert runs(mine) == before
    assert read_source(out).records


def test_the_command_line_takes_all_of_them(mine, tmp_path):
    def resolute(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output

    told = resolute(
        "attack", "bicubic", f"{mine}:photos", "--attack", f"{mine}:ColourCast", "--option", "reach=1",
        "--ground-truth", "--out", tmp_path / "a",
    )  # fmt: skip
    assert "mine.py:ColourCast" in told
    assert "score" in resolute(
        "certify", f"{mine}:photos", "--metric", f"{mine}:score", "--samples", 2, "--out", tmp_path / "c"
    )


def test_names_with_odd_characters_are_files_too(tmp_path):
    path = tmp_path / "mein Ordner_1é" / "a-b.c.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent("class Kind: ..."))
    kind = own_code(f"{path}:Kind").load()
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert own_code("Kind") is own_code("C:x") is None
    write_png(tmp_path / "x.png", from_uint8(np.zeros((4, 4, 3), np.uint8)))
    assert isinstance(Path(sys.modules[kind.__module__].__file__), Path)
