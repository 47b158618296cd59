"""Commands that list what there is by name: attacks, recipes, studies."""

from __future__ import annotations

import dataclasses
import inspect
import re

from resolute.attacks.names import ATTACKS, OBJECTIVES
from resolute.cli.app import app
from resolute.cli.naming import Json, show
from resolute.plugins import Group, plugins
from resolute.studies.kinds import STUDIES, read_study
from resolute.table import Column, Row, Table, row
from resolute.training.recipe import built_in_recipes, hardening_methods, read_recipe, variants
from resolute.training.restore_recipe import Recipe


@app.command(epilog="Example:  [bold]resolute attacks[/bold]")
def attacks(json: Json = False) -> None:
    """List the attacks and what they can climb."""
    rows = [row(name, "attack", _first_sentence(kind)) for name, kind in ATTACKS.items()] + _added("attacks")
    aims = [row(name, "objective", _first_sentence(kind)) for name, kind in OBJECTIVES.items()] + _added("objectives")
    aims[0] = dataclasses.replace(aims[0], section=True)
    note = "Also FILE.py:NAME. An attack is named by --attack, what it climbs by --objective, its fields by --option."
    show(Table("", [Column("name", whole=True), Column("what"), Column("how")], [*rows, *aims], [note]), json)


@app.command(epilog="Example:  [bold]resolute recipes[/bold]")
def recipes(json: Json = False) -> None:
    """List the recipes of training and hardening."""
    rows: list[Row] = []
    for name in built_in_recipes():
        recipe = read_recipe(name)
        task = "restore" if isinstance(recipe, Recipe) else recipe.task
        steps = None if task == "harden" else recipe.optimizer.steps  # its minutes say how many
        rows.append(row(name, task, steps, str(getattr(recipe, "start", ""))))
    columns = [
        Column("name", whole=True), Column("task", meaning="what is trained"), Column("steps"),
        Column("starts from", meaning="weights; random where there is nothing"),
    ]  # fmt: skip
    notes = [
        f"Behind the name of a network, as rcan-entropy: {', '.join(variants())}.",
        f"resolute harden --method: {', '.join(hardening_methods())}.",
    ]
    show(Table("", columns, rows, notes), json)


@app.command(epilog="Example:  [bold]resolute studies[/bold]")
def studies(json: Json = False) -> None:
    """List the built-in studies and what they ask."""
    rows: list[Row] = []
    for name in sorted(path.stem for path in STUDIES.glob("*.toml")):
        study = read_study(name)
        quick = "yes" if getattr(study, "quick", None) is not None else ""
        question = str(getattr(study, "question", "")).partition("?")[0]
        rows.append(row(name, study.kind, quick, f"{question}?" if question else _first_sentence(type(study))))
    columns = [
        Column("name", whole=True), Column("kind"), Column("quick", meaning="whether --quick takes minutes"),
        Column("question"),
    ]  # fmt: skip
    added = [f"{one.name}, a kind of study of {one.package} {one.version}" for one in plugins("studies")]
    show(Table("", columns, rows, added), json)


def _added(group: Group) -> list[Row]:
    return [row(one.name, group[:-1], f"of {one.package} {one.version}") for one in plugins(group)]


def _first_sentence(thing: object) -> str:
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")
    return re.split(r"(?<!eq)(?<!eqs)\. ", text)[0]
