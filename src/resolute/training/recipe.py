"""Recipes: everything that determines a training run, read from TOML and checked before anything starts."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.models.edsr import EDSR, Upsampler
from resolute.toml import read_toml

STRICT = pydantic.ConfigDict(extra="forbid")


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
class OptimizerTable:
    """Adam and its schedule.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate.
        warmup: steps of linear rise.
        schedule: ``cosine`` to zero at the last step, or ``halve`` every ``halve_every`` steps as in EDSR's recipe.
        halve_every: see ``schedule``.
        clip: largest gradient norm; 0 for no limit.
        ema: decay of the weight average that is validated and saved; 0 for none.
    """

    steps: int = pydantic.Field(default=300_000, ge=1)
    rate: float = pydantic.Field(default=1e-4, gt=0)
    warmup: int = pydantic.Field(default=0, ge=0)
    schedule: Literal["cosine", "halve"] = "halve"
    halve_every: int = pydantic.Field(default=200_000, ge=1)
    clip: float = pydantic.Field(default=0.0, ge=0)
    ema: float = pydantic.Field(default=0.0, ge=0, lt=1)


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
    """A training run. The reconstruction loss is L1 on the scale of [0, 255], as in the paper.

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
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    checkpoint_every: int = pydantic.Field(default=1000, ge=1)
    validate_every: int = pydantic.Field(default=1000, ge=1)
    model: ModelTable = dataclasses.field(default_factory=ModelTable)
    data: DataTable = dataclasses.field(default_factory=DataTable)
    optimizer: OptimizerTable = dataclasses.field(default_factory=OptimizerTable)
    defence: DefenceTable | None = None

    @staticmethod
    def read(source: str | Path) -> Recipe:
        """Read a recipe from a TOML file, or a built-in one by name.

        Raises:
            ConfigError: no such recipe, no valid TOML, or a key that does not exist or is out of range.
        """
        built_in = {path.name.removesuffix(".toml"): path for path in built_in_recipes()}
        path = built_in.get(str(source), Path(source))
        if not path.is_file():
            raise ConfigError(f"no recipe {str(source)!r}; give a TOML file or one of {', '.join(sorted(built_in))}")
        return read_toml(path, Recipe)

    def build(self) -> EDSR:
        """Return the untrained network; its weights are the caller's to seed."""
        table = self.model
        return EDSR(table.scale, table.blocks, table.channels, table.upsampler)


def built_in_recipes() -> list[Path]:
    """Return the recipes that come with the package."""
    folder = Path(str(resources.files("resolute") / "training" / "recipes"))
    return sorted(folder.glob("*.toml"))
