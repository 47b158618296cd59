"""Recipes: everything that determines a training run, read from TOML and checked before anything starts.

The recipe of a super-resolution model is here; those of a quality metric and of a denoiser have files of their own.
"""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.models.edsr import EDSR, Upsampler
from resolute.toml import check_table, read_table
from resolute.training.denoise_recipe import DenoiseRecipe
from resolute.training.score_recipe import ScoreRecipe
from resolute.training.tables import STRICT, OptimizerTable, Precision


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelTable:
    """Which network to train.

    Attributes:
        architecture: ``edsr``.
        scale: 2, 3 or 4.
        blocks, channels, upsampler: see ``EDSR``.
    """

    architecture: Literal["edsr"] = "edsr"
    scale: Literal[2, 3, 4] = 4
    blocks: int = 16
    channels: int = 64
    upsampler: Upsampler = "staged"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataTable:
    """How batches are cut from a folder of images.

    Attributes:
        patch: side of a low-resolution patch, in pixels.
        batch: patches a step, over all devices together.
        validation: images held out of training, spread evenly over the sorted folder, for the validation PSNR.
        licence: terms of the images, written into the model card.
    """

    patch: int = pydantic.Field(default=48, ge=8)
    batch: int = pydantic.Field(default=16, ge=1)
    validation: int = pydantic.Field(default=10, ge=0)
    licence: str = "not stated"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DefenceTable:
    """The entropy regulariser; see ``EntropyRegularizer`` for all but the two attributes below.

    Attributes:
        layer: name of the layer it attaches to; empty for the model's own feature layer.
        rate: learning rate of the density, as a multiple of the model's.
    """

    kind: Literal["entropy"] = "entropy"
    layer: str = ""
    weight: float = pydantic.Field(default=1.0, ge=0)
    delta: float = pydantic.Field(default=1.0, gt=0)
    noise: bool = True
    bits_at: Literal["noisy", "clean"] = "noisy"
    widths: tuple[int, ...] = (3, 3, 3)
    init_scale: float = pydantic.Field(default=10.0, gt=0)
    rate: float = pydantic.Field(default=1.0, gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """The training of a super-resolution model. The loss is L1 on the scale of [0, 255], as in the paper.

    Attributes:
        name: of the model that comes out.
        start: weights to start from instead of random ones: the name of a recipe whose run lies beside this one, or a
            safetensors file. The density of a regularised run comes along.
        seed: of the initial weights, the patches and the noise.
        precision: ``bf16-mixed`` or ``32-true``.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
        defence: the regulariser, or None for plain training.

    Example:
        >>> recipe = Recipe.read("edsr-s-entropy")
        >>> recipe.model.scale, recipe.defence is not None
        (4, True)
    """

    name: str
    start: str = ""
    seed: int = 0
    precision: Precision = "32-true"
    checkpoint_every: int = pydantic.Field(default=1000, ge=1)
    validate_every: int = pydantic.Field(default=1000, ge=1)
    model: ModelTable = dataclasses.field(default_factory=ModelTable)
    data: DataTable = dataclasses.field(default_factory=DataTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    defence: DefenceTable | None = None

    @staticmethod
    def read(source: str | Path) -> Recipe:
        """Read the recipe of a super-resolution model; see ``read_recipe``, which reads those of all kinds.

        Raises:
            ConfigError: no such recipe, a wrong one, or one of another kind.
        """
        recipe = read_recipe(source)
        if not isinstance(recipe, Recipe):
            raise ConfigError(f"{recipe.name} trains no super-resolution model; read it with read_recipe")
        return recipe

    def build(self) -> EDSR:
        """Return the untrained network; its weights are the caller's to seed."""
        table = self.model
        return EDSR(table.scale, table.blocks, table.channels, table.upsampler)


AnyRecipe = Recipe | ScoreRecipe | DenoiseRecipe

_TASKS: dict[object, type[Recipe] | type[ScoreRecipe] | type[DenoiseRecipe]] = {
    "restore": Recipe,
    "score": ScoreRecipe,
    "denoise": DenoiseRecipe,
}


def read_recipe(source: str | Path) -> AnyRecipe:
    """Read a recipe from a TOML file, or a built-in one by name.

    The key ``task`` says what it trains: ``restore``, the default, a super-resolution model; ``score`` a quality
    metric; ``denoise`` a denoiser. With ``base = "NAME"`` it takes all that it does not say itself from another
    recipe, built in or beside it.

    Raises:
        ConfigError: no such recipe, no valid TOML, or a key that does not exist or is out of range.

    Example:
        >>> read_recipe("denoiser-mse-006").sigma, read_recipe("denoiser-mse-012").sigma
        (0.06, 0.12)
    """
    path = _find(str(source))
    content = _inherit(path, seen=())
    task = content.get("task", "restore")
    if task not in _TASKS:
        raise ConfigError(f"{path.name}: task is one of {', '.join(map(str, _TASKS))}, not {task!r}")
    if task == "restore":
        content.pop("task", None)
    return check_table(path, content, _TASKS[task])


def adjusted(
    recipe: AnyRecipe, *, seed: int | None = None, metric: str | None = None, backbone: Path | None = None
) -> AnyRecipe:
    """Return the recipe with what a user said otherwise.

    Raises:
        ConfigError: the recipe has no metric in its loop, or no backbone, to say otherwise of.

    Example:
        >>> adjusted(read_recipe("edsr-s"), seed=3).seed
        3
    """
    if seed is not None:
        recipe = dataclasses.replace(recipe, seed=seed)
    if metric is not None:
        if not isinstance(recipe, DenoiseRecipe) or not recipe.metric:
            raise ConfigError(f"{recipe.name} has no quality metric in its loop; leave out --metric")
        recipe = dataclasses.replace(recipe, metric=metric)
    if backbone is not None:
        if not isinstance(recipe, ScoreRecipe) or recipe.model.architecture != "mobilenet":
            raise ConfigError(f"{recipe.name} has no backbone; leave out --backbone")
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, backbone=str(backbone)))
    return recipe


def built_in_recipes() -> list[Path]:
    """Return the recipes that come with the package."""
    folder = Path(str(resources.files("resolute") / "training" / "recipes"))
    return sorted(folder.glob("*.toml"))


def _find(source: str, beside: Path | None = None) -> Path:
    built_in = {path.name.removesuffix(".toml"): path for path in built_in_recipes()}
    candidates = [built_in.get(source, Path(source))]
    if beside is not None:
        candidates += [beside / source, beside / f"{source}.toml"]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"no recipe {source!r}; give a TOML file or one of {', '.join(sorted(built_in))}")


def _inherit(path: Path, seen: tuple[Path, ...]) -> dict[str, object]:
    content = read_table(path)
    if "base" not in content:
        return content
    base = _find(str(content.pop("base")), beside=path.parent)
    if base in (*seen, path):
        raise ConfigError(f"{path.name}: base: {base.name} is based on this recipe")
    return _merge(_inherit(base, (*seen, path)), content)


def _merge(base: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    merged = base | changes
    for key, value in changes.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = below | value
    return merged
