"""The script that fine-tunes a network in all ways of the first paper's ablations."""

import dataclasses

import pytest
from small import script_of


@pytest.fixture(scope="module")
def script():
    return script_of("make_first_paper")


def test_every_variant_is_a_recipe_and_differs_in_its_method_alone(script):
    recipes = {variant: script.recipe_of("net", variant, "", 2000) for variant in script.VARIANTS}
    plain = dataclasses.asdict(recipes["plain"])
    for recipe in recipes.values():
        differs = {key for key, value in dataclasses.asdict(recipe).items() if value != plain[key]}
        assert differs <= {"name", "defence", "adversarial"}
        assert recipe.precision == recipe.search.replace("float", "") + "-true"
    assert recipes["pe"].defence == dataclasses.replace(recipes["entropy"].defence, noise=False, bits_at="clean")
    assert recipes["adversarial-entropy"].adversarial == recipes["adversarial"].adversarial
    # Section 5.6: every patch is seen clean and attacked.
    assert recipes["adversarial"].adversarial.clean(4) == 4


def test_the_layer_is_that_of_the_caller_but_where_a_variant_names_another(script):
    layers = {name: script.recipe_of("net", name, "skip", 1).defence for name in ("entropy", "lambda-1", "first")}
    assert {name: defence.layer for name, defence in layers.items()} == {
        "entropy": "skip",
        "lambda-1": "skip",
        "first": "first",
    }
    study = script.named("net", {"plain": "a.pth", "entropy": "b.pth"}, script.STUDY.parent, "skip")
    assert [one.options.get("layers") for one in study.attacks if one.kind == "fda"] == [("skip",), ("all-relu",)]


def test_claims_are_about_the_variants_that_are_there(script):
    study = script.named("net", {"plain": "a.pth", "pe": "b.pth"}, script.STUDY.parent, "")
    assert [claim.order for claim in study.expected] == [(("net-pe",), ("net-plain",))]
    whole = script.named("net", dict.fromkeys(script.VARIANTS, "a.pth"), script.STUDY.parent, "")
    assert len(whole.expected) == len(script.read_study(script.STUDY).expected)
