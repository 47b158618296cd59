"""Recipes: everything that determines a training run, read from TOML and checked before anything starts.

Each kind of training has the tables of its recipe in a file of its own; here they are found, put together and read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import cast

from resolute.errors import ConfigError
from resolute.of_file import anchored, own_code
from resolute.toml import check_table, read_table
from resolute.training.denoise_recipe import DenoiseRecipe
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.restore_recipe import Recipe
from resolute.training.score_recipe import ScoreRecipe

_FOLDER = Path(str(resources.files("resolute") / "training" / "recipes"))

AnyRecipe = Recipe | ScoreRecipe | DenoiseRecipe | HardenRecipe

_TASKS: dict[object, type[Recipe] | type[ScoreRecipe] | type[DenoiseRecipe] | type[HardenRecipe]] = {
    "restore": Recipe,
    "score": ScoreRecipe,
    "denoise": DenoiseRecipe,
    "harden": HardenRecipe,
}


def read_recipe(source: str | Path, methods: Sequence[str] | None = None) -> AnyRecipe:
    """Read a recipe from a TOML file, or a built-in one by name.

    The key ``task`` says what it trains: ``restore``, the default, a super-resolution model; ``score`` a quality
    metric; ``denoise`` a denoiser; ``harden`` a super-resolution model that is there already. With ``base = "NAME"`` it
    takes all that it does not say itself from another recipe, built in or beside it. The name of a recipe of a
    super-resolution model may end in that of one of its ``variants``.

    The key ``methods`` of a hardening names files of ``hardening_methods``, whose tables the recipe itself can change.

    Args:
        source: name or file.
        methods: for a hardening, instead of those that the recipe names.

    Raises:
        ConfigError: no such recipe, no valid TOML, or a key that does not exist or is out of range.

    Example:
        >>> read_recipe("denoiser-mse-006").sigma, read_recipe("denoiser-mse-012").sigma
        (0.06, 0.12)
    """
    path, content = _content(str(source))
    task = content.get("task", "restore")
    if not isinstance(task, str) or task not in _TASKS:
        raise ConfigError(f"{path.name}: task is one of {', '.join(map(str, _TASKS))}, not {task!r}")
    if task == "restore":
        content.pop("task", None)
    if task == "harden":
        named = tuple(methods) if methods is not None else content.pop("methods", ())
        content.pop("methods", None)
        content = _merge(_of_methods(path, named), content)
    return check_table(path, content, _TASKS[task])


def adjusted(
    recipe: AnyRecipe,
    *,
    seed: int | None = None,
    metric: str | None = None,
    backbone: Path | None = None,
    start: str | None = None,
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
    if start is not None:
        recipe = dataclasses.replace(recipe, start=start)
    if metric is not None:
        if not isinstance(recipe, DenoiseRecipe) or not recipe.metric:
            raise ConfigError(f"{recipe.name} has no quality metric in its loop; leave out --metric")
        recipe = dataclasses.replace(recipe, metric=metric)
    if backbone is None:
        return recipe
    if isinstance(recipe, Recipe) and recipe.gan is not None:
        return dataclasses.replace(recipe, gan=dataclasses.replace(recipe.gan, backbone=str(backbone)))
    if isinstance(recipe, ScoreRecipe) and recipe.model.architecture != "quality":
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, backbone=str(backbone)))
    raise ConfigError(f"{recipe.name} has no backbone; leave out --backbone")


def built_in_recipes() -> dict[str, Path]:
    """Return the names and files of the recipes that come with the package, without their variants."""
    return {path.name.removesuffix(".toml"): path for path in sorted(_FOLDER.glob("*.toml"))}


def variants() -> dict[str, Path]:
    """Return what can follow the name of any recipe of a super-resolution model, as in ``rcan-lambda-10``.

    A recipe that starts from another one's weights starts from those of the same variant.

    Example:
        >>> "lambda-10" in variants(), read_recipe("rcan-lambda-10").defence.weight
        (True, 10.0)
    """
    return {path.name.removesuffix(".toml"): path for path in sorted((_FOLDER / "variants").glob("*.toml"))}


def hardening_methods() -> dict[str, Path]:
    """Return the names and files of the methods of ``harden``, which combine.

    Example:
        >>> "adversarial" in hardening_methods(), read_recipe("harden", ["adversarial", "entropy"]).defence.delta
        (True, '0.05 std')
    """
    return {path.name.removesuffix(".toml"): path for path in sorted((_FOLDER / "methods").glob("*.toml"))}


def _of_methods(path: Path, named: object) -> dict[str, object]:
    """Return the tables of methods by their names."""
    known = hardening_methods()
    content: dict[str, object] = {}
    seen: dict[str, str] = {}
    listed = named.split("+") if isinstance(named, str) else named
    for name in map(str, cast("list[object]", listed) if isinstance(listed, list | tuple) else [listed]):
        if own_code(name) is not None:
            content["own"] = [*cast("list[object]", content.get("own", [])), {"method": name}]
            continue
        if name not in known:
            there = f"there are {', '.join(known)}, and FILE.py:NAME for one of your own"
            raise ConfigError(f"{path.name}: methods: {name!r} is none; {there}")
        table = read_table(known[name])
        for key in table:
            if key in seen:
                both = (
                    f"{name} and {seen[key]} are two forms of {key}" if name != seen[key] else f"{name} is there twice"
                )
                raise ConfigError(f"methods: {both}: give one of them")
            seen[key] = name
        content |= table
    return content


def _content(source: str, beside: Path | None = None, seen: tuple[str, ...] = ()) -> tuple[Path, dict[str, object]]:
    """Return the file that ``source`` names and what it says, with what it takes from other recipes."""
    built_in = built_in_recipes()
    candidates = [built_in.get(source, Path(source))]
    if beside is not None:
        candidates += [beside / source, beside / f"{source}.toml"]
    for path in candidates:
        if path.is_file():
            content = cast("dict[str, object]", anchored(read_table(path), path.resolve().parent))
            if "base" not in content:
                return path, content
            base = str(content.pop("base"))
            if base in (*seen, source):
                raise ConfigError(f"{path.name}: base: {base} is based on this recipe")
            try:
                return path, _merge(_content(base, path.parent, (*seen, source))[1], content)
            except ConfigError as error:
                raise ConfigError(f"{path.name}: base: {error}") from None
    return _varied(source, beside, seen)


def _varied(source: str, beside: Path | None, seen: tuple[str, ...]) -> tuple[Path, dict[str, object]]:
    # The longest suffix first, so that "adv-entropy" is not taken for the "entropy" of a recipe called "...-adv".
    for variant, path in sorted(variants().items(), key=lambda item: -len(item[0])):
        stem = source.removesuffix(f"-{variant}")
        if stem != source and stem in built_in_recipes():
            _, content = _content(stem, beside, seen)
            changes: dict[str, object] = {"name": source}
            if content.get("start") in built_in_recipes():
                changes["start"] = f"{content['start']}-{variant}"
            return path, _merge(content, read_table(path)) | changes
    raise ConfigError(
        f"no recipe {source!r}; give a TOML file or one of {', '.join(built_in_recipes())}; those of super-resolution "
        f"models also with one of {', '.join(f'-{name}' for name in variants())} at the end"
    )


def _merge(base: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    merged = base | changes
    for key, value in changes.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            # A network of another architecture has other arguments.
            other = "architecture" in value and value["architecture"] != below.get("architecture")
            merged[key] = value if other else below | value
    return merged
