"""The study of two forms of one network: what it computes, searches for, concludes and shows."""

import dataclasses

import pytest
import torch
from small import tiny
from test_cli import fails, run
from torch.nn import functional as F

from resolute import ConfigError, Restorer, load_defended
from resolute import run as run_study
from resolute.attacks import PGD, Square
from resolute.engine import Store
from resolute.engine.plan import Plan
from resolute.images import sample_image, write_png
from resolute.report.page import write_markdown
from resolute.studies import grid_cases, twin
from resolute.studies.results import Case
from resolute.studies.twin import Twin


def enlarged(x, scale=2):
    return F.interpolate(x, scale_factor=scale)


class Made(Restorer):
    """A function as a model of its own name."""

    feature_layer = ""

    def __init__(self, forward):
        super().__init__(2)
        self.made = forward
        self.card = self.describe(forward.__name__)

    def arguments(self):
        return {"class": self.made.__name__}

    def features(self, x):
        return x

    def reconstruct(self, phi):
        return self.made(phi)

    def forward(self, x):
        return self.made(x)


def first(x):
    return enlarged(x)


def shifted(x):
    return enlarged(x) + 3 / 255


def late(x):
    return enlarged(x + 4 * torch.relu(x - 0.9))


def deaf(x):
    return late(x).detach()


def brittle(x):
    return enlarged(1.01 * x + 10 / 255 * (x.sub(224 / 255).abs() < 1e-3))


def bursts(x):
    return enlarged(x) * torch.nan


def large(x):
    return enlarged(x, 4)


NETS = {made.__name__: made for made in (first, shifted, late, deaf, brittle, bursts, large)}


@pytest.fixture(autouse=True)
def nets(monkeypatch):
    def loaded(name, scale=None):
        return Made(NETS[name]) if name in NETS else load_defended(name, scale)

    for module in (twin, grid_cases):
        monkeypatch.setattr(module, "load_defended", loaded)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    # On the edge of what takes the late one apart.
    write_png(folder / "grey.png", torch.full((3, 24, 24), 224 / 255))
    write_png(folder / "photos" / "coffee.png", sample_image("coffee")[:, 100:164, 100:164])
    return folder


def study(place, *others, **changes):
    options = {"models": ("first", *others), "images": (str(place / "grey.png"),), "scale": 2, "steps": 10}
    return Twin(**options | changes)


def test_a_known_difference_is_found(place, tmp_path):
    records = run_study(study(place, "shifted", level=0), tmp_path)
    (record,) = records
    assert (record.largest, record.changed) == (3, 100)
    assert record.unrounded == pytest.approx(3, abs=1e-3)
    assert record.psnr == pytest.approx(20 * torch.log10(torch.tensor(255 / 3)).item(), abs=0.01)
    assert "not the same" in study(place, "shifted").results(records).sentences[0]
    assert "are the same" in study(place, "shifted", tolerance=3).results(records).sentences[0]


@pytest.mark.parametrize(("form", "attack"), [("late", "PGD"), ("deaf", "Square")])
def test_a_difference_beside_an_image_is_searched_for(place, tmp_path, form, attack):
    plan = study(place, form)
    honest, searched = sorted(run_study(plan, tmp_path), key=lambda record: record.search)
    assert honest.largest == 0
    assert honest.psnr is None
    assert searched.search == f"{attack}, 8/255"
    # 232 of 255 is 2.5 levels beyond 0.9, times four.
    assert searched.largest == 10
    told = plan.results([honest, searched]).sentences[0]
    assert "not the same" in told
    (case, *_) = plan.cases([searched], tmp_path)
    assert isinstance(case, Case)
    assert [view.label for view in case.views][:3] == ["input", "output", "output"]
    assert float(case.views[0].pixels.max()) == pytest.approx(232 / 255, abs=1e-4)


def test_a_search_never_finds_less_than_the_image_it_begins_at(place, tmp_path):
    honest, searched = sorted(run_study(study(place, "brittle"), tmp_path), key=lambda record: record.search)
    assert honest.largest == searched.largest == 12
    assert searched.search


def test_the_search_follows_gradients_where_there_are_any(place):
    plan = study(place, "late")
    assert isinstance(plan.attack(True), PGD)
    assert isinstance(plan.attack(False), Square)
    assert plan.attack(False).queries == 100


def test_what_is_not_finite_or_of_another_size_is_told(place, tmp_path):
    (record,) = run_study(study(place, "bursts", level=0), tmp_path / "bursts")
    assert record.broken
    assert (record.largest, record.psnr) == (255, 0)
    with pytest.raises(ConfigError):
        run_study(study(place, "large", level=0), tmp_path / "large")
    with pytest.raises(ConfigError):
        study(place, "first").cells()


def test_as_typed(place, tmp_path):
    net = tiny(tmp_path / "net.safetensors", "net")
    arguments = ("twin", net, "int8", "--images", place / "photos", "--crop", 48, "--steps", 2, "--out")
    code, told, _ = run(*arguments, tmp_path / "run", "--fail-under", "largest-difference=255")
    assert code == 0
    assert "net+as=int8 and net" in told
    assert len(Store(tmp_path / "run").read()) == 2
    assert "as=int8" in write_markdown([tmp_path / "run"], tmp_path / "page.md").read_text()
    assert (tmp_path / "run" / "report.html").is_file()
    fails(13, *arguments, tmp_path / "run", "--fail-under", "largest-difference=0")
    fails(4, "twin", net, "no-such-net", "--out", tmp_path / "other")


def test_the_mean_over_images_is_of_each_form(place, tmp_path):
    records = run_study(study(place, "shifted", "late", level=0), tmp_path)
    results = study(place, "shifted", "late").results(records)
    assert len(results.sentences) == 2
    twice = [*records, *(dataclasses.replace(record, image="again", changed=0.0) for record in records)]
    assert "50 %" in study(place, "shifted").results(twice).sentences[0]
    all_differ = [dataclasses.replace(record, changed=99.8) for record in records]
    assert "99.8 %" in study(place, "shifted").results(all_differ).sentences[0]


def test_another_form_that_seems_not_to_upscale_is_named(place):
    asked = study(place, "shifted", "late")
    cells = asked.cells()
    for cell in cells:
        cell.other.doubt = f"{cell.other.card.name} does not upscale"
    assert Plan(asked, cells).doubts() == ["shifted does not upscale", "late does not upscale"]
