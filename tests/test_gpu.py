"""What runs on a GPU: training, hardening by every method, networks by their code, attacks and studies."""

import dataclasses
import os

import pytest
import torch
from small import four_photographs, judge_by_few_steps

from resolute.attacks.registry import AttackTable
from resolute.engine.queue import Machine
from resolute.engine.running import run
from resolute.models import EDSR, Card
from resolute.models.weights import save_model
from resolute.studies.grid import Grid
from resolute.studies.steepness import CleverTable
from resolute.training import read_recipe, train
from resolute.training.hardening import harden
from resolute.training.recipe import hardening_methods

# For who has none: RESOLUTE_TEST_DEVICE=cpu runs the same on the processor.
DEVICE = os.environ.get("RESOLUTE_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.filterwarnings("ignore:the code in"),
]

SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1))
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        h = self.head(x)
        return nn.functional.interpolate(x, scale_factor=2) + 0.1 * self.tail(h + self.body(h.clone()))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return four_photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    path = tmp_path_factory.mktemp("native") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EDSR(scale=2, blocks=1, channels=8)
    save_model(model, path, Card(name="small", architecture=model.arguments(), scale=2, licence="MIT"))
    return str(path)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coded")
    (folder / "net.py").write_text(SOURCE)
    scope = {}
    exec(SOURCE, scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(scope["Net"]().state_dict(), folder / "net.pth")
    return f"{folder}/net.py:Net#x2,weights={folder}/net.pth"


@pytest.mark.parametrize("methods", [[name] for name in hardening_methods()] + [["adversarial", "entropy"]])
def test_every_method_hardens(methods, native, photos, tmp_path, monkeypatch):
    judge_by_few_steps(monkeypatch)
    recipe = shortened(read_recipe("harden", methods))
    made = harden(native, photos, tmp_path, recipe=recipe, steps=6, tested=1, device=DEVICE)
    assert made.weights.is_file()


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_a_network_by_its_code_is_hardened(precision, coded, photos, tmp_path, monkeypatch):
    judge_by_few_steps(monkeypatch)
    recipe = shortened(read_recipe("harden"))
    made = harden(coded, photos, tmp_path, recipe=recipe, steps=6, tested=1, precision=precision, device=DEVICE)
    before = torch.load(coded.split("weights=")[1], weights_only=True)
    after = torch.load(made.weights, weights_only=True)
    assert after.keys() == before.keys()
    assert all(tensor.device.type == "cpu" for tensor in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize("name", ["edsr-xs", "edsr-xs-entropy", "edsr-xs-adv-entropy"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_training_gives_what_loads_on_a_processor(name, precision, photos, tmp_path):
    recipe = read_recipe(name)
    recipe = dataclasses.replace(
        recipe,
        precision=precision,
        model=dataclasses.replace(recipe.model, blocks=1, channels=8),
        data=dataclasses.replace(recipe.data, patch=12, batch=2, validation=1),
        optimizer=dataclasses.replace(recipe.optimizer, steps=6, warmup=1, clip=10.0),
    )
    made = train(recipe, [photos], tmp_path, device=DEVICE)
    assert made.figures["psnr_y"] > 5
    # On with it, where a killed run stopped.
    assert train(recipe, [photos], tmp_path, device=DEVICE).figures == made.figures


@pytest.mark.parametrize("which", ["native", "coded"])
def test_attacks_find_what_they_find_on_a_processor(which, request, tmp_path):
    study = Grid(
        name="gpu",
        models=(request.getfixturevalue(which),),
        attacks=(
            AttackTable("noise", draws=2),
            AttackTable("ifgsm", steps=3),
            AttackTable("fda", steps=3),
            AttackTable("apgd", steps=5),
            AttackTable("apgd", label="truth", steps=5, reference="hr"),
            AttackTable("square", queries=5),
        ),
        epsilons=(4,),
        images=("samples",),
        every=3,
        crop=32,
        scale=2,
        clever=CleverTable(samples=2, radius=1, ascents=1),
    )
    here, there = (run(study, tmp_path / device, Machine(device=device)) for device in ("cpu", DEVICE))
    assert len(here) == len(there) > 6
    for one, other in zip(here, there, strict=True):
        if hasattr(one, "sr_psnr"):
            assert other.clean_psnr_y == pytest.approx(one.clean_psnr_y, abs=1e-3)
            assert other.sr_psnr == pytest.approx(one.sr_psnr, abs=0.5)
        else:
            assert other.index == pytest.approx(one.index, rel=1e-2)


def shortened(recipe):
    """A recipe for small patches and a step or two of every attack."""
    few = {
        name: dataclasses.replace(table, steps=min(table.steps, 2))
        for name in ("adversarial", "consistency")
        if (table := getattr(recipe, name)) is not None
    }
    data = dataclasses.replace(recipe.data, patch=12, batch=4, validation=1)
    return dataclasses.replace(recipe, data=data, checkpoint_every=3, validate_every=3, **few)
