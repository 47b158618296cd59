import dataclasses
import pickle
import shutil

import pytest
import torch
from odd import FULL

from resolute import ConfigError, Recipe, load, train
from resolute.images import sample_image, write_png
from resolute.models import CARN
from resolute.training.recipe import adjusted, built_in_recipes, read_recipe, variants
from resolute.training.restore import RestoreTask

PUBLISHED = ("edsr-baseline", "srresnet", "srgan", "rcan", "msrn", "carn")
# Every network plain and every variant for two networks, of fewer blocks; RESOLUTE_HOSTILE=full takes all with all, and
# the plain ones whole.
PAIRS = [
    (name, variant)
    for number, name in enumerate(PUBLISHED)
    for place, variant in enumerate(["", *variants()])
    if FULL or not variant or (number + place) % 3 == 0
]
RESTORERS = [name for name in built_in_recipes() if isinstance(read_recipe(name), Recipe)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:148, 150:198])
    return folder


def shortened(recipe: Recipe, **sizes: int) -> Recipe:
    """Return the recipe with its own network, losses and rate, for as little data and time as possible."""
    own = {field.name for field in dataclasses.fields(recipe.model)}
    return dataclasses.replace(
        recipe,
        start="",
        model=dataclasses.replace(recipe.model, **{name: size for name, size in sizes.items() if name in own}),
        data=dataclasses.replace(recipe.data, patch=8, batch=2, validation=0),
        optimizer=dataclasses.replace(recipe.optimizer, steps=2, warmup=0),
        gan=recipe.gan and dataclasses.replace(recipe.gan, content="quality-s"),
    )


def run(recipe, photos, folder):
    figures = []
    trained = train(recipe, [photos], folder, device="cpu", on_step=lambda _step, seen: figures.append(seen))
    return load(trained.weights), figures


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_every_recipe_of_a_published_network_runs_end_to_end(name, variant, photos, tmp_path):
    recipe = read_recipe(f"{name}-{variant}" if variant else name)
    whole = FULL and not variant
    model, figures = run(shortened(recipe, **({} if whole else {"blocks": 2, "groups": 2})), photos, tmp_path / "run")
    assert model.card.name == recipe.name == f"{name}-{variant}".removesuffix("-")
    assert len(figures) == 2
    assert all(torch.tensor([step["loss"] for step in figures]).isfinite())
    assert ("jacobian" in figures[0]) == (variant == "jacobian")
    assert (figures[0].get("bits", 0) > 0) == (recipe.defence is not None and recipe.defence.weight > 0)
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("name", [name for name in RESTORERS if name not in PUBLISHED])
def test_every_other_recipe_runs_end_to_end(name, photos, tmp_path):
    recipe = read_recipe(name)
    model, _ = run(shortened(recipe), photos, tmp_path)
    assert model.card.training["recipe"]["model"]["architecture"] == recipe.model.architecture


@pytest.mark.parametrize("name", PUBLISHED)
def test_variants_differ_from_the_plain_recipe_in_the_defence_alone(name):
    plain = read_recipe(name)
    for variant in variants():
        varied = read_recipe(f"{name}-{variant}")
        same = dataclasses.replace(
            varied, name=plain.name, start=plain.start, defence=None, adversarial=None, jitter=None, jacobian=None
        )
        assert same == plain
        assert varied != dataclasses.replace(plain, name=varied.name)


def test_the_constants_are_those_of_the_papers():
    entropy = read_recipe("edsr-baseline-entropy")
    assert (entropy.defence.weight, entropy.defence.delta, entropy.defence.widths) == (1.0, 1.0, (3, 3, 3))
    assert read_recipe("srresnet").loss.bit_weight == 0.1
    assert all(read_recipe(name).loss.bit_weight == 1.0 for name in ("edsr-baseline", "rcan", "msrn", "carn"))
    adversarial = read_recipe("rcan-adv").adversarial
    assert (adversarial.level, adversarial.steps) == (8.0, 1)
    assert [read_recipe(name).data.patch for name in PUBLISHED] == [48, 24, 24, 48, 48, 64]
    assert [read_recipe(name).data.batch for name in PUBLISHED] == [16, 16, 16, 16, 16, 64]
    assert [read_recipe(name).optimizer.steps for name in PUBLISHED] == [
        300_000, 1_000_000, 200_000, 1_000_000, 1_000_000, 600_000,
    ]  # fmt: skip


def test_a_hardened_srgan_starts_from_the_equally_hardened_srresnet():
    assert read_recipe("srgan").start == "srresnet"
    assert read_recipe("srgan-entropy").start == "srresnet-entropy"
    assert read_recipe("edsr-s-pe").start == "edsr-s-stage1-pe"


def test_the_longest_variant_is_meant():
    both = read_recipe("edsr-xs-adv-entropy")
    assert both.adversarial is not None
    assert both.defence is not None


def test_an_unknown_variant_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"'rcan-magic'.*edsr-baseline.*-lambda-10"):
        read_recipe("rcan-magic")


def test_a_variant_of_something_else_than_super_resolution_is_refused():
    with pytest.raises(ConfigError, match=r"entropy\.toml.*: defence"):
        read_recipe("quality-s-entropy")


def test_a_recipe_may_be_based_on_a_variant(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "carn-lambda-10"\nname = "mine"\n[optimizer]\nsteps = 5\n')
    recipe = read_recipe(file)
    assert (recipe.name, recipe.defence.weight, recipe.optimizer.steps) == ("mine", 10.0, 5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_layer_is_the_first_convolution(name, photos):
    recipe = shortened(read_recipe(f"{name}-first"))
    task = RestoreTask(recipe, [photos])
    assert task.hardener.layers == (recipe.model.first_layer(),)
    assert task.hardener.defences[0].density.channels == recipe.model.channels


def test_training_goes_on_from_a_weights_file(photos, tmp_path):
    recipe = shortened(read_recipe("edsr-xs"))
    first, _ = run(recipe, photos, tmp_path / "first")
    start = str(tmp_path / "first" / "edsr-xs.safetensors")
    none = dataclasses.replace(recipe.optimizer, rate=1e-30)
    second, _ = run(adjusted(dataclasses.replace(recipe, optimizer=none), start=start), photos, tmp_path / "second")
    assert all(torch.allclose(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_start_of_another_network_is_refused(photos, tmp_path):
    run(shortened(read_recipe("edsr-xs")), photos, tmp_path / "first")
    recipe = adjusted(shortened(read_recipe("rcan-xs")), start=str(tmp_path / "first" / "edsr-xs.safetensors"))
    with pytest.raises(ConfigError, match=r"^rcan-xs .*edsr-xs\.safetensors"):
        run(recipe, photos, tmp_path / "second")


def test_noise_and_the_jacobian_penalty_do_not_go_together(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "edsr-xs-entropy"\nname = "mine"\n[jacobian]\nweight = 1.0\n')
    with pytest.raises(ConfigError, match=r"mine\.toml.*jacobian.*defence\.noise"):
        read_recipe(file)


def test_official_carn_goes_on_as_the_same_function_on_the_scale_of_the_loss(photos, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        official = CARN(scale=4, channels=64, group=4).eval()
    torch.save(official.state_dict(), tmp_path / "official.pth")
    recipe = shortened(read_recipe("carn-m-tuned"))
    task = RestoreTask(recipe, [photos])
    task.start(tmp_path / "official.pth")
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(task.model.eval()(x), official(x), atol=1e-5)
        assert torch.allclose(task.model.features(x), 255 * official.features(x), rtol=1e-4, atol=1e-3)


def test_a_network_takes_every_argument_of_its_constructor_and_no_other(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[model]\narchitecture = "srresnet"\nscale = 3\nactivation = "tanh"\n')
    assert read_recipe(file).model.build().arguments()["activation"] == "tanh"
    for line in ("groups = 2", 'activation = "relu"', "scale = 5", 'blocks = "x"', "widths = [4, 4]"):
        file.write_text(f'name = "mine"\n[model]\narchitecture = "srresnet"\n{line}\n')
        with pytest.raises(ConfigError, match=rf"mine\.toml, line 4: model\.(srresnet\.)?{line.split()[0]}"):
            read_recipe(file)


def test_arguments_that_do_not_go_together_are_told_before_the_images_are_read(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "rcan"\nname = "mine"\n[model]\nreduction = 7\n')
    with pytest.raises(ConfigError, match="reduction"):
        RestoreTask(read_recipe(file), [tmp_path / "nothing"])


def test_a_recipe_of_another_architecture_takes_no_sizes_from_its_base():
    recipe = read_recipe("dncnn-mse-012")
    assert dataclasses.asdict(recipe.model) == {"architecture": "dncnn", "depth": 17, "channels": 64}
    assert pickle.loads(pickle.dumps(recipe)) == recipe
