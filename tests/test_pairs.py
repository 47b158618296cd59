import pytest
import torch

from resolute.defences import Mixture, OutputBlur
from resolute.errors import ConfigError
from resolute.models.base import Card
from resolute.models.edsr import EDSR
from resolute.models.registry import Bicubic, load
from resolute.studies.kinds import read_study
from resolute.studies.pairs import defends_of, pairs_of

RECIPE = {"name": "mine", "start": "", "model": {"blocks": 1}, "optimizer": {"steps": 9}, "defence": None}
ENTROPY = {"kind": "entropy", "weight": 1.0}


def model(name, **training):
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        made = EDSR(scale=4, blocks=1, channels=4, upsampler="direct")
    made.card = Card(
        name=name, architecture=made.arguments(), scale=4, licence="MIT", sha256=f"sha256 of {name}", training=training
    )
    return made


def test_names_pair_nothing():
    assert defends_of([model("mine"), model("mine-v2"), model("mine-entropy"), model("mine (2)")]) == {}


def test_a_defence_around_a_model_defends_it():
    plain = model("mine")
    once = Mixture(plain, 0.5)
    twice = OutputBlur(once, 1.0)
    assert defends_of([plain, once, twice]) == {
        "mine+mix=0.5": "mine",
        "mine+mix=0.5+blur=1": "mine+mix=0.5",
    }
    assert defends_of([plain, twice]) == {"mine+mix=0.5+blur=1": "mine"}
    assert defends_of([model("other"), once]) == {}


def test_a_recipe_with_a_defence_defends_the_same_recipe_without():
    plain = model("mine", recipe=RECIPE)
    defended = model("robust", recipe={**RECIPE, "name": "robust", "start": "elsewhere", "defence": ENTROPY})
    attacked = model("adv", recipe={**RECIPE, "adversarial": {"level": 8.0}})
    longer = model("longer", recipe={**RECIPE, "optimizer": {"steps": 10}, "defence": ENTROPY})
    assert defends_of([plain, defended, attacked, longer]) == {"robust": "mine", "adv": "mine"}


def test_a_hardened_model_defends_the_weights_that_it_started_from():
    plain = model("mine")
    hardened = model("hardened", recipe={"task": "harden", "weights": "sha256 of mine"})
    assert defends_of([plain, hardened]) == {"hardened": "mine"}


def test_all_but_bicubic_defend_the_baseline():
    plain, other = model("mine"), model("other")
    bicubic = Bicubic(4)
    assert defends_of([plain, other, bicubic, Mixture(other, 0.5)], plain) == {
        "other": "mine",
        "other+mix=0.5": "other",
    }


def test_the_built_in_pair_is_known_from_its_cards():
    assert defends_of([load("edsr-s"), load("edsr-s-entropy"), load("bicubic")]) == {"edsr-s-entropy": "edsr-s"}


def test_the_baseline_is_one_of_the_models(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "s"\nmodels = ["bicubic"]\nbaseline = "edsr-s"\n[[attacks]]\nkind = "fgsm"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml.*baseline.*edsr-s.*bicubic"):
        read_study(path)


@pytest.mark.parametrize("name", ["demo", "bsd100", "lambda", "defences", "random-resizing"])
def test_built_in_studies_name_their_baseline(name):
    study = read_study(name)
    assert study.baseline == study.models[0]
    if study.quick is not None:
        assert study.quickly().baseline in ("", *study.quickly().models)


def test_pairs_are_among_the_models():
    assert pairs_of(["a", "b"], {"b": "a", "c": "a"}) == [("a", "b")]
