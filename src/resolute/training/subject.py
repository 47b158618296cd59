"""The model that is hardened: where its weights came from, and how they go back in the form in which they came."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, final

from torch import nn

from resolute.defences.wrappers import Defended
from resolute.errors import CheckpointError, ConfigError
from resolute.models.address import parse_address
from resolute.models.base import Restorer
from resolute.models.foreign import Foreign
from resolute.models.ncnn_network import NcnnNetwork
from resolute.models.onnx_models import OnnxRestorer
from resolute.models.registry import load_address
from resolute.models.weights import save_model, weights_sha256
from resolute.table import Column, Table, row
from resolute.training.hardened import Hardening, tables
from resolute.training.restore_recipe import MethodTables

_METHODS = tuple(field.name for field in dataclasses.fields(MethodTables) if field.name != "own")


@final
@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model to harden.

    Attributes:
        model: as it was loaded.
        address: where from, or empty for a model of the caller's own.
        name: what it is called.
        sha256: of its weights and of what else determines it.
    """

    model: Restorer
    address: str
    name: str
    sha256: str

    @property
    def note(self) -> str:
        """What the user of the weights must know, or empty."""
        return "" if self.model.origin is None else self.model.origin.note

    @property
    def file_name(self) -> str:
        """Of the hardened weights: that of the file they came from, with a word in it."""
        origin = self.model.origin
        path = Path(f"{self.name}.safetensors") if origin is None else origin.path
        return f"{path.stem}-hardened{path.suffix}"

    def write(self, model: Restorer, path: Path, training: dict[str, object]) -> None:
        """Write weights as the file they came from has them, or, where there is none, as safetensors.

        Raises:
            OutputError: the file cannot be written.
        """
        origin = self.model.origin
        if origin is not None:
            origin.write(model, path, training)
            return
        card = self.model.card or model.describe(self.name)
        # By the names that the network's own code has for its weights.
        network = model.network if isinstance(model, Foreign) else model
        save_model(network, path, dataclasses.replace(card, name=f"{self.name}-hardened", training=training))

    def read_back(self, path: Path, model: Restorer) -> Restorer:
        """Return the model as the written file has it: what was rounded to fewer bits is judged as rounded."""
        if not self.address:
            return copy.deepcopy(model)
        return load_address(parse_address(self.address).holding(path))

    def page(self, made: Hardening) -> str:
        """Return the card of the hardened weights as Markdown."""
        recipe = made.facts["recipe"]
        data, optimizer = recipe["data"], recipe["optimizer"]
        licence = "unknown" if self.model.card is None else self.model.card.licence
        facts = {
            "starts from": f"{self.name}, sha256 `{self.sha256}`; licence: {licence}",
            "methods": "; ".join(
                [_told(name, recipe[name]) for name in _METHODS if recipe[name]]
                + [_told(table["method"], {**table, "method": ""}) for table in recipe.get("own", ())]
            )
            or "plain fine-tuning",
            "trained": _reached(made.facts.get("reach", {})),
            "steps": f"{optimizer['steps']} of {data['batch']} patches of {data['patch']} x {data['patch']}, "
            f"Adam, {optimizer['rate']:g}, {optimizer['schedule']}",
            "photographs": f"licence: {data['licence']}",
            "seed": recipe["seed"],
            "hardware": made.facts["provenance"]["hardware"],
        }
        lines = [f"# {_plain(made.weights.name)}", ""]
        lines += [_plain(line) for line in (*made.sentences(), *([made.note] if made.note else []))]
        for table in tables(made):
            lines += ["", table.markdown()]
        columns = [Column("fact"), Column("value")]
        lines.append(Table("", columns, [row(key, value) for key, value in facts.items()]).markdown())
        command = made.facts["provenance"]["command"].replace("`", "'")
        lines.append(f"Made by `{command}`.")
        # A name that is no valid text arrives here as lone surrogates, which a file cannot hold.
        return ("\n".join(lines) + "\n").encode(errors="replace").decode()


def subject_of(model: nn.Module, address: str) -> Checkpoint:
    """Return a model as a subject of hardening.

    Raises:
        CheckpointError: its weights cannot be written back, as to ONNX or ncnn; or it is code without its weights.
        ConfigError: it has a defence around it, or is no restorer.
    """
    if not isinstance(model, Restorer):
        raise ConfigError(f"a {type(model).__name__} is no Restorer: wrap it as resolute.as_restorer(module, scale)")
    if isinstance(model, Defended):
        raise ConfigError(
            "a defence around a model has no weights: harden the model inside, without the + and the rest"
        )
    if isinstance(model, OnnxRestorer):
        raise CheckpointError("an ONNX file cannot be trained; give the PyTorch weights that it was made from")
    if isinstance(model, Foreign) and isinstance(model.network, NcnnNetwork):
        raise CheckpointError(
            "weights are not written back to files of ncnn; give the PyTorch weights they were made from"
        )
    if model.origin is not None:
        model.origin.check(model)
    if address and model.doubt and parse_address(address).code and not parse_address(address).weights:
        raise CheckpointError(f"no weights were given for {address}: add --weights FILE")
    card = model.card
    sha256 = card.sha256 if card is not None and card.sha256 else weights_sha256(model.state_dict())
    name = card.name if card is not None else type(model).__name__
    # A name that is no valid text holds lone surrogates, which JSON cannot.
    return Checkpoint(model, address, name.encode(errors="replace").decode(), sha256)


def _plain(text: str) -> str:
    """Return text as Markdown shows it, names with tags in them too."""
    return text.replace("<", "&lt;")


def _reached(reach: dict[str, Any]) -> str:
    """Return in words which weights were trained."""
    words = f"{reach.get('share', 1.0):.0%} of the weights"
    words += ", frozen ones too" if reach.get("unfrozen") else ""
    return words + (", with the branches that are merged in use" if reach.get("branches") else "")


def _told(name: str, table: dict[str, object]) -> str:
    """Return a method and its options in words."""
    title = "entropy regulariser" if name == "defence" else name
    return f"{title} ({', '.join(f'{key} {value}' for key, value in table.items() if value not in (None, ''))})"
