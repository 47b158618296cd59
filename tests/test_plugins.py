"""A real package with entry points, written for CONTRIBUTING.md, built and installed by pip into a folder."""

import dataclasses
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from warm import Typed

from resolute import load, load_scorer, run
from resolute.attacks.registry import AttackTable
from resolute.errors import CheckpointError, ConfigError
from resolute.images import sample_image, write_png
from resolute.plugins import find_plugin, plugins
from resolute.studies.datasets import find_photos
from resolute.studies.kinds import read_study

HERE = Path(__file__).parent
EXAMPLE = HERE / "plugin_example"
CONTRIBUTING = HERE.parent / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder that pip has installed the example into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *options, str(source)], check=True, timeout=120)
    return target


@pytest.fixture
def plugged(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)


def resolute(site, *arguments, home):
    """Type a command where the packages of a folder are installed, and return what it says."""
    said = home / "said"
    environment = {"PYTHONPATH": str(site), "HOME": str(home), "COLUMNS": "200"}
    said.unlink(missing_ok=True)
    code, stderr = Typed(*arguments, stdout=said, environment=environment).ended(120)
    assert code == 0, stderr
    return said.read_text() + stderr


def broken(site, name, group, value, code):
    """Lay an installed package into a folder, as pip leaves it."""
    facts = site / f"{name}-0.3.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
    (facts / "entry_points.txt").write_text(f"[resolute.{group}]\n{value}\n")
    (site / f"{name}.py").write_text(textwrap.dedent(code))


def shown_in_contributing() -> list[str]:
    return re.findall(r"```(?:python|toml)\n(.*?)```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL)


def test_contributing_shows_the_very_package():
    shown = shown_in_contributing()
    code = (EXAMPLE / "colourcast.py").read_text()
    assert any(code.startswith("import dataclasses") and block == code for block in shown)
    assert any(block == (EXAMPLE / "pyproject.toml").read_text() for block in shown)


def test_the_attack_of_contributing_is_forty_lines():
    code = (EXAMPLE / "colourcast.py").read_text()
    attack = code[code.index("@dataclasses") : code.index("@final\nclass Nearest")]
    assert len(attack.strip().splitlines()) <= 40


def test_the_study_of_contributing_is_forty_lines():
    code = next(block for block in shown_in_contributing() if "class Jpeg(" in block)
    assert len([line for line in code[code.index("@dataclasses") :].splitlines() if line.strip()]) <= 40


def test_all_four_kinds_work_on_the_command_line(installed, tmp_path):
    cats = tmp_path / "cats"
    cats.mkdir()
    write_png(cats / "chelsea.png", sample_image("chelsea")[:, 100:124, 100:130])
    listed = resolute(installed, "models", home=tmp_path)
    for name in ("colour_cast", "redness", "nearest", "cats"):
        assert re.search(rf"{name}.*resolute-colourcast 1\.0", listed)
    out = tmp_path / "out"
    options = ["--attack", "colour_cast", "--steps", 4, "--option", "reach=1.5", "--out", out]
    resolute(installed, "attack", "nearest", cats / "chelsea.png", *options, home=tmp_path)
    figures = json.loads((out / "figures.json").read_text())
    assert "colour_cast" in json.dumps(figures)
    assert "reach=1.5" in json.dumps(figures)
    options = ["--objective", "redness", "--steps", 2, "--out", tmp_path / "o"]
    resolute(installed, "attack", "nearest", "cats", *options, home=tmp_path)


def test_the_names_are_built(plugged, monkeypatch, tmp_path):
    model = load("nearest")
    assert (model.card.name, model.card.scale, model.card.licence) == (
        "nearest",
        2,
        "see the package resolute-colourcast",
    )
    x = sample_image("coffee")[None, :, :12, :12]
    attack = AttackTable(kind="colour_cast", steps=3).build(4 / 255)
    assert attack.steps == 3
    found = attack(model, x)
    assert (found.objective > attack.ascent().objective.bind(model, x)(x)).all()
    climbed = AttackTable(kind="pgd", objective="redness").build(4 / 255)
    assert type(climbed.objective).__name__ == "Redness"
    typed = AttackTable.typed(["reach=1.5"], kind="colour_cast", steps=3)
    assert typed.build(4 / 255) == dataclasses.replace(attack, reach=1.5)
    assert typed == AttackTable(kind="colour_cast", steps=3, reach=1.5)
    with pytest.raises(ConfigError, match=r"^reach: .*'far'"):
        AttackTable.typed(["reach=far"], kind="colour_cast")
    for kind, name in (("colour_cast", "haste"), ("pgd", "haste"), ("worst", "haste"), ("colour_cast", "epsilon")):
        with pytest.raises(ConfigError, match=f"^{name}: {kind} has no such option"):
            AttackTable(kind=kind, **{name: "3"})
    with pytest.raises(ConfigError, match=r"reech.*\breach\b"):
        AttackTable(kind="colour_cast", reech=3)
    with pytest.raises(CheckpointError, match="by 2, not by 4"):
        load("nearest", scale=4)
    with pytest.raises(CheckpointError, match="super-resolution"):
        load_scorer("nearest")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cats").mkdir()
    write_png(tmp_path / "cats" / "tom.png", torch.rand(3, 8, 8))
    assert [(photo.dataset, photo.name) for photo in find_photos(["cats"])] == [("cats", "tom")]


def test_a_study_gives_an_attack_its_own_options(plugged, tmp_path):
    write_png(tmp_path / "chelsea.png", sample_image("chelsea")[:, 100:124, 100:130])
    path = tmp_path / "own.toml"
    head = f'name = "own"\nmodels = ["nearest"]\nimages = ["{tmp_path / "chelsea.png"}"]\nscale = 2\nepsilons = [4]\n'
    path.write_text(head + '[[attacks]]\nkind = "colour_cast"\nsteps = 2\nreach = 1.5\n')
    (record,) = run(read_study(path), tmp_path / "out")
    assert "steps=2, reach=1.5" in record.configuration
    path.write_text(path.read_text().replace("1.5", '"far"'))
    with pytest.raises(ConfigError, match=r"^own\.toml, line 9: attacks\.0\.reach: .*'far'"):
        read_study(path)


def test_errors_offer_the_names_of_plugins(plugged):
    with pytest.raises(ConfigError, match="colour_cast"):
        AttackTable(kind="deepfool").build(0.1)
    with pytest.raises(ConfigError, match="redness"):
        AttackTable(kind="pgd", objective="loudness").build(0.1)
    with pytest.raises(CheckpointError, match="nearest"):
        load("neerest")


def test_nothing_is_imported_until_a_name_is_used(plugged, monkeypatch, tmp_path):
    broken(tmp_path, "spoilt", "attacks", "spoil = spoilt:Attack", "raise ImportError('no such library\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    assert [plugin.name for plugin in plugins("attacks")] == ["colour_cast", "spoil"]
    assert AttackTable(kind="colour_cast").build(0.2).steps == 10
    with pytest.raises(ConfigError) as caught:
        AttackTable(kind="spoil").build(0.1)
    for told in ("'spoil'", "spoilt 0.3", "spoilt:Attack", "ImportError: no such library"):
        assert told in str(caught.value)


def test_two_packages_of_one_name_are_told(plugged, monkeypatch, tmp_path):
    broken(tmp_path, "rival", "attacks", "colour_cast = rival:Attack", "Attack = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="resolute-colourcast and rival"):
        find_plugin("attacks", "colour_cast")


WRONG = """
    def number(): return 7
    def fails(): raise RuntimeError('out of memory')
    seven = 7
"""


@pytest.mark.parametrize(
    ("group", "value", "use", "message"),
    [
        ("models", "wrong:number", lambda: load("odd"), "returns an object of type int"),
        ("models", "wrong:seven", lambda: load("odd"), "no callable that returns a model"),
        ("models", "wrong:fails", lambda: load_scorer("odd"), "cannot be built: RuntimeError: out of memory"),
        ("attacks", "wrong:number", lambda: AttackTable(kind="odd").build(0.1), "is no attack"),
        ("objectives", "wrong:seven", lambda: AttackTable(kind="pgd", objective="odd").build(0.1), "is no objective"),
        ("datasets", "wrong:fails", lambda: find_photos(["odd"]), "cannot find its images"),
        ("datasets", "wrong:seven", lambda: find_photos(["odd"]), "no callable"),
        ("datasets", "wrong:absent", lambda: find_photos(["odd"]), "cannot be imported: AttributeError"),
        ("datasets", "wrong:number", lambda: find_photos(["odd"]), "returns"),
    ],
)
def test_what_is_none_of_its_kind_is_refused(monkeypatch, tmp_path, group, value, use, message):
    broken(tmp_path, "wrong", group, f"odd = {value}", WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    with pytest.raises(ConfigError, match=message) as caught:
        use()
    assert "wrong 0.3" in str(caught.value)


def test_records_of_a_kind_from_a_package_are_read_by_another_process(tmp_path):
    code = re.findall(r"```python\n(import dataclasses\nimport io.*?)```", CONTRIBUTING.read_text(), re.S)[0]
    site = tmp_path / "site"
    (site / "jpegs-1.0.dist-info").mkdir(parents=True)
    (site / "jpegs.py").write_text(code)
    (site / "jpegs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: jpegs\nVersion: 1.0\n")
    (site / "jpegs-1.0.dist-info" / "entry_points.txt").write_text("[resolute.studies]\njpeg = jpegs:Jpeg\n")
    study, out = tmp_path / "mine.toml", tmp_path / "out"
    study.write_text('kind = "jpeg"\nname = "mine"\nmodels = ["bicubic"]\nqualities = [90]\n')
    resolute(site, "study", study, "--out", out, home=tmp_path)
    assert "report.html" in resolute(site, "report", out, home=tmp_path)
    counted = resolute(site, "query", "SELECT count(*) AS n FROM jpeg", "--runs", out, "--format", "csv", home=tmp_path)
    assert counted.split() == ["n", "1"]
    assert re.search(r"jpeg.*kind of study", resolute(site, "models", home=tmp_path))
