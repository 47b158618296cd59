"""Errors in a study or a recipe name the line and the key."""

import pytest

from resolute import ConfigError, read_recipe
from resolute.studies.kinds import read_study
from resolute.toml import line_of, read_table

STUDY = """\
# What is asked.
name = "x"
models = [
    "edsr-s",  # one
    "bicubic",
]
epsilons = [1, 2]

[[attacks]]
kind = "fda"
steps = 5

[[attacks]]
kind = "worst"

[[attacks.attacks]]
kind = "pgd"

[[attacks.attacks]]
kind = "apgd"
steps = 7

[clever]
samples = 16

[quick]
"epsilons" = [4]
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ('name = "x"', "name = 3", 2, "name"),
        ('"bicubic",', "7,", 3, "models.1"),
        ("epsilons = [1, 2]", "epsilonz = [1, 2]", 7, "epsilonz"),
        ("steps = 5", "steps = 0", 11, "attacks.0.steps"),
        ('kind = "fda"', 'kind = "fdaa"', 10, "attacks.0.kind"),
        ('kind = "fda"\n', "", 9, "attacks.0.kind"),
        ("steps = 7", 'steps = "many"', 21, "attacks.1.attacks.1.steps"),
        ("steps = 7", "stepz = 7", 21, "attacks.1.attacks.1.stepz"),
        ("steps = 5", 'mask = "clear"', 11, "attacks.0.mask"),
        ("steps = 5", "start = 'zero'\nobjective = 'output'", 9, "attacks.0"),
        ("epsilons = [1, 2]", "epsilons = [1, 0.7]", 7, "epsilons.1"),
        ("samples = 16", "samples = -1", 24, "clever.samples"),
        ('"epsilons" = [4]', '"epsilons" = []', 27, "quick.epsilons"),
        ("[quick]", "[quickly]", 26, "quickly"),
        ('name = "x"', 'name = "x"\nmeasures = ["psnr"]', 3, "measures"),
        ('name = "x"', 'name = "x"\nseeds = [0, 0.5]', 3, "seeds.1"),
        ('name = "x"', 'name = "x"\nquestion = """\na = 1\n[b]\n"""\nevery = 0', 7, "every"),
        ('name = "x"', 'name = "x"\nkind = "unheard-of"', 3, "kind"),
    ],
)
def test_an_error_names_the_line_and_the_key(tmp_path, old, new, line, key):
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"^study\.toml, line {line}: {key}: "):
        read_study(path)


def test_the_text_as_it_stands_is_valid(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    assert read_study(path).attacks[1].options["attacks"][1].options == {"steps": 7}


def test_what_is_not_there_has_no_line(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\n[[attacks]]\nkind = "fda"\n')
    with pytest.raises(ConfigError, match=r"^study\.toml: models: "):
        read_study(path)


def test_broken_toml_names_the_line(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace("epsilons = [1, 2]", "epsilons = [1, 2"))
    with pytest.raises(ConfigError, match=r"TOML.*line \d"):
        read_study(path)


def test_recipes_name_the_line_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[model]\nblocks = 1\n[optimizer]\nsteps = 2\nrate = -1\n')
    with pytest.raises(ConfigError, match=r"^mine\.toml, line 6: optimizer\.rate: "):
        read_recipe(path)


def test_dotted_keys_and_inline_tables_are_found():
    text = "a.b = 1\n[c]\nd . e = 2\nf = [{ g = 1 },\n { h = 2 }]\n'i j' = 3\n"
    assert [line_of(text, tuple(key.split("."))) for key in ("a.b", "c.d.e", "c.f.1.h", "c.i j", "z")] == [
        1,
        3,
        4,
        6,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "line", "near"),
    [("epsilonz = [4]", 3, "epsilons"), ("[clever]\nsampels = 3", 4, "samples"), ("[quick]\nstep = 3", 4, "steps")],
)
def test_an_unknown_key_names_the_nearest_one(tmp_path, text, line, near):
    path = tmp_path / "study.toml"
    path.write_text(f'name = "x"\nmodels = ["bicubic"]\n{text}\n[[attacks]]\nkind = "fgsm"\n')
    with pytest.raises(ConfigError, match=rf"study\.toml, line {line}: .*{near}"):
        read_study(path)


def test_a_key_that_is_near_to_none_lists_all(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\nmodels = ["bicubic"]\nzzz = 1\n[[attacks]]\nkind = "fgsm"\n')
    with pytest.raises(ConfigError, match=r"zzz: .*epsilons.*models"):
        read_study(path)


def test_a_number_of_more_than_64_bits_is_named(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(f"seeds = [1, {2**63 - 1}]\n[clever]\nsamples = [1, {2**63}]\n")
    with pytest.raises(ConfigError, match=r"^study.toml, line 3: clever.samples.1: .* 64 bits"):
        read_table(path)


def test_a_key_of_another_table_is_not_proposed_again(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name = "a"\nrate = 0.1\nscale = 4\n')
    with pytest.raises(ConfigError, match="line 2: rate: no such key here, but in another table"):
        read_recipe(path)


@pytest.mark.parametrize("text", [f"x = {'[' * 70}{']' * 70}", f"x = {'[' * 5000}{']' * 5000}", f"x{'.x' * 200} = 1"])
def test_what_is_nested_too_deep_is_named(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"study\.toml.*nested"):
        read_table(path)


def test_a_key_of_many_characters_takes_no_time():
    assert line_of(f'"\\"{"a" * 60}" = 1\nb = 2', ("b",)) == 2
