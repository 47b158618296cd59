"""From a name or a file to a quality metric: the built-in ones, the classical ones, and those of pyiqa."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from resolute.errors import CheckpointError
from resolute.models.base import Card, Scorer, ScorerCard
from resolute.models.brisque import BRISQUE
from resolute.models.external import load_external
from resolute.models.hub import HUBS, fetch
from resolute.models.libraries import LIBRARIES, load_from_library
from resolute.models.naturalness import parameter_file
from resolute.models.niqe import NIQE
from resolute.models.onnx_models import load_onnx_scorer
from resolute.models.plugged import build
from resolute.models.probe import probe
from resolute.models.readings import tell_choice
from resolute.models.recognised import recognise_scorer
from resolute.models.scorer_file import scorer_of_file
from resolute.models.weights import FILES, built_in_weights, read_sets, weights_sha256
from resolute.of_file import OwnCode
from resolute.plugins import find_plugin


def built_in_scorers() -> dict[str, Path]:
    """Return the names and files of the quality metrics trained by this project."""
    return built_in_weights(ScorerCard)


def load_scorer(scorer: str | Path, data: Path | None = None) -> Scorer:
    """Load a quality metric by name or from a weights file, and probe it (see ``models.probe``).

    The architecture of a file is recognised from its layout. The metric comes in evaluation mode, with its card.

    Args:
        scorer: a built-in name (``quality-s``); ``niqe`` or ``brisque``; ``pyiqa:`` and the name of one of pyiqa's
            metrics (``pyiqa:dbcnn``), or so of piq or torchmetrics (see ``models.libraries``); ``FILE.py:NAME``, see
            ``models.scorer_file``; the name of a plug-in or of a file on a hub; or the path of a ``.safetensors``,
            ``.pt``, ``.pth`` or ``.onnx`` file.
        data: the folder of research data with the parameters of ``niqe`` and ``brisque`` below ``iqa/weights``; by
            default the one that RESOLUTE_DATA names.

    Raises:
        CheckpointError: no such metric; a damaged, hostile or non-finite file; an unknown layout; a model that is no
            quality metric; parameters that are not there; weights that pyiqa cannot download.
        ConfigError: pyiqa is missing or has no such metric; the metric fails on sample images.
    """
    # As in ``load``.
    with torch.random.fork_rng(devices=[]):
        return _load(scorer, data)


def _load(scorer: str | Path, data: Path | None) -> Scorer:
    if str(scorer).startswith("pyiqa:"):
        external = load_external(str(scorer).removeprefix("pyiqa:"))
        # Some of these crop or tile their input and fail on small ones.
        external.card = probe(external, side=384)
        return external
    if str(scorer).startswith(LIBRARIES):
        return load_from_library(str(scorer))
    if scorer in ("niqe", "brisque"):
        return _classical(str(scorer), data)
    if str(scorer).startswith(HUBS):
        return _load(fetch(str(scorer)), data)
    path = {**built_in_scorers(), **built_in_weights(Card)}.get(str(scorer), Path(scorer))
    plugin = None if path.is_file() else find_plugin("models", str(scorer))
    if isinstance(plugin, OwnCode):
        return scorer_of_file(plugin)
    if plugin is not None:
        plugged = build(plugin, Scorer)
        plugged.card = probe(plugged)
        return plugged
    if not path.is_file() and path.suffix not in FILES:
        known = ", ".join([*built_in_scorers(), "niqe", "brisque", "pyiqa:NAME", "piq:NAME", "torchmetrics:NAME"])
        raise CheckpointError(f"no quality metric named {str(scorer)!r}; give a weights file or one of {known}")
    if path.suffix == ".onnx" and path.is_file():
        session = load_onnx_scorer(path)
        session.card = probe(session)
        return session
    if path.suffix == ".param" and path.is_file():
        raise CheckpointError(f"{path.name} holds a network of ncnn, and no metric; load it with load")
    sets, card = read_sets(path)
    if isinstance(card, Card):
        raise CheckpointError(f"{path.name} holds a super-resolution model; load it with load")
    metric, reading = recognise_scorer(sets, path.name)
    taken = tell_choice(reading, sets, path.name)
    sha256 = weights_sha256(reading.state)
    facts = metric.describe(path.stem, sha256=sha256, training={"weights": taken} if taken else None)
    if card is None:
        card = facts
    elif card.sha256 != facts.sha256:
        raise CheckpointError(f"{path.name} does not match the sha256 on its card; copy the file again")
    elif (card.low, card.high, card.lower_better) != (facts.low, facts.high, facts.lower_better):
        raise CheckpointError(f"{path.name} does not match the range on its card; copy the file again")
    metric.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue], a gap in torch's stubs
    metric.card = probe(metric, dataclasses.replace(card, smallest=facts.smallest, size_rule=facts.size_rule))
    return metric


def _classical(name: str, data: Path | None) -> Scorer:
    if name == "niqe":
        metric: Scorer = NIQE.read(parameter_file("niqe_pris_params.npz", data))
    else:
        metric = BRISQUE.read(parameter_file("brisque", data))
    card = metric.eval().describe(name, licence="parameters: Apache-2.0", sha256=weights_sha256(metric.state_dict()))
    metric.card = probe(metric, card)
    return metric
