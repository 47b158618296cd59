"""ONNX files as models: what an attacker without gradients sees, run by onnxruntime, the optional extra [onnx]."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError, ConfigError, ImageError, first_line
from resolute.models.base import Card, Scorer, ScorerCard, SplitRestorer
from resolute.models.weights import card_of

HINT = "pip install 'resolute[onnx]'"

# Under which names a file written by Resolute carries its card and what it is.
CARD, KIND = "resolute.card", "resolute.kind"

# Sides of the sample that tells the scale; a file of another fixed size is tried on that.
_SIDES = (64, 64)

ADVICE = (
    "an ONNX file has no gradient to climb: attack it with square or noise, search on another model with transfer, or "
    "load the PyTorch weights instead"
)


@final
class Session:
    """An onnxruntime session as a function of images, without a gradient.

    Attributes:
        metadata: what the file says about itself.
        size: height and width that it is made for, None where it takes any.
        batch: of the images that it is made for, None where it takes any.
    """

    def __init__(self, content: bytes, file: str) -> None:
        runtime = _runtime(file)
        options: Any = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for every way in which a file is broken.
            raise CheckpointError(f"{file} is no ONNX file that onnxruntime can run: {first_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape: list[object] = list(inputs[0].shape) if len(inputs) == 1 else []
        if len(shape) != 4 or (shape[1] not in (3, None) and isinstance(shape[1], int)) or not outputs:
            found = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise CheckpointError(f"{file} takes {found}; Resolute needs one input, (batch, 3, height, width)")
        if inputs[0].type != "tensor(float)":
            raise CheckpointError(f"{file} takes {inputs[0].type}; Resolute needs float32, images in [0, 1]")
        self._input, self._output = inputs[0].name, outputs[0].name
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.size = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None

    def __call__(self, x: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Run the session.

        Raises:
            ImageError: the images do not have the size that it is made for, or it fails on them.
        """
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            height, width = self.size
            raise ImageError(f"this ONNX file takes images of {width} x {height} pixels alone; export it for any size")
        found = [self._once(some) for some in x.split(self.batch or len(x))]
        return torch.cat(found).to(x.device)

    def _once(self, x: Tensor) -> Tensor:
        images = x.detach().float().contiguous().cpu()
        try:
            (found,) = self._session.run([self._output], {self._input: images.numpy()})
        except Exception as error:
            raise ImageError(f"the ONNX file fails on images of shape {tuple(x.shape)}: {first_line(error)}") from None
        return torch.from_numpy(found)


class _WithoutGradient(torch.autograd.Function):
    """The identity forwards; backwards the advice what to do without gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise ConfigError(ADVICE)


@final
class OnnxRestorer(SplitRestorer):
    """A super-resolution model in an ONNX file. Its feature layer is its output, for nothing inside can be seen."""

    feature_layer = "output"

    def __init__(self, session: Session, scale: int, sha256: str = "") -> None:
        super().__init__(scale)
        self.session = session
        self.output = torch.nn.Identity()
        self._sha256 = sha256

    def arguments(self) -> dict[str, object]:
        return {"class": "OnnxRestorer", "sha256": self._sha256}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.output(_without_gradient(x, self.session(x)))

    def reconstruct(self, phi: Float[Tensor, "b 3 sh sw"]) -> Float[Tensor, "b 3 sh sw"]:
        return phi


@final
class OnnxScorer(Scorer):
    """A quality metric in an ONNX file, one score an image."""

    def __init__(self, session: Session, sha256: str = "", card: ScorerCard | None = None) -> None:
        super().__init__()
        self.session = session
        self._sha256 = sha256
        if card is not None:
            self.declare(card)

    def arguments(self) -> dict[str, object]:
        return {"class": "OnnxScorer", "sha256": self._sha256}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        self.require_size(x)
        scores = _without_gradient(x, self.session(x).reshape(len(x), -1).squeeze(1))
        # Whatever the file says, this makes the range true.
        return scores if self.low is None and self.high is None else scores.clamp(self.low, self.high)


def load_onnx_restorer(path: Path) -> OnnxRestorer:
    """Load a super-resolution model from an ONNX file, with its card where Resolute wrote it.

    Raises:
        CheckpointError: onnxruntime cannot run the file, or it does not map images to images.
        ConfigError: onnxruntime is missing.
    """
    session, sha256, facts = _opened(path, "restorer")
    height, width = session.size or _SIDES
    y = _tried(session, path)
    if y.ndim != 4 or y.shape[1] != 3 or y.shape[2] % height or y.shape[2] * width != y.shape[3] * height:
        raise CheckpointError(f"{path.name} turns (1, 3, {height}, {width}) into {tuple(y.shape)}, and no larger image")
    model = OnnxRestorer(session, y.shape[2] // height, sha256)
    card = model.describe(path.stem, sha256=sha256)
    model.card = card if facts is None else _kept(card, facts, path)
    return model.eval()


def load_onnx_scorer(path: Path) -> OnnxScorer:
    """Load a quality metric from an ONNX file; its card is not probed yet.

    Raises:
        CheckpointError: onnxruntime cannot run the file, or it does not map images to scores.
        ConfigError: onnxruntime is missing.
    """
    session, sha256, facts = _opened(path, "scorer")
    y = _tried(session, path)
    if y.numel() != 1:
        raise CheckpointError(f"{path.name} turns an image into {tuple(y.shape)}, and not into one score")
    card = None
    if facts is not None:
        try:
            if not all(isinstance(facts.get(end), float | int | None) for end in ("low", "high")):
                raise TypeError
            card = card_of(facts, ScorerCard)
        except TypeError:
            raise CheckpointError(f"{path.name} carries a damaged model card; export it again") from None
    model = OnnxScorer(session, sha256, card)
    licence, training = (card.licence, card.training) if card is not None else ("unknown", {})
    model.card = model.describe(path.stem, licence=licence, sha256=sha256, training=training)
    return model.eval()


def open_session(path: Path) -> Session:
    """Open an ONNX file.

    Raises:
        CheckpointError: onnxruntime cannot run it.
        ConfigError: onnxruntime is missing.
    """
    return Session(_content(path), path.name)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}") from None


def _opened(path: Path, kind: str) -> tuple[Session, str, dict[str, Any] | None]:
    content = _content(path)
    session = Session(content, path.name)
    said = session.metadata.get(KIND, kind)
    if said != kind:
        other = "load_scorer" if said == "scorer" else "load"
        raise CheckpointError(f"{path.name} holds a {said[:40]}; load it with {other}")
    try:
        facts: Any = json.loads(session.metadata.get(CARD, "null"))
    except ValueError:
        facts = {}
    # One that is no mapping has nothing that a card needs.
    return session, hashlib.sha256(content).hexdigest(), facts if isinstance(facts, dict | None) else {}


def _kept(card: Card, facts: dict[str, Any], path: Path) -> Card:
    name, licence, training = facts.get("name"), facts.get("licence"), facts.get("training")
    if not (isinstance(name, str) and isinstance(licence, str) and isinstance(training, dict)):
        raise CheckpointError(f"{path.name} carries a damaged model card; export it again")
    known = cast("dict[str, object]", training)
    return dataclasses.replace(card, name=f"{name}-onnx", licence=licence, training=known)


def _tried(session: Session, path: Path) -> Tensor:
    try:
        return session(torch.full((1, 3, *(session.size or _SIDES)), 0.5))
    except ImageError as error:
        raise CheckpointError(f"{path.name}: {error}") from None


def _without_gradient(x: Tensor, y: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled():
        return cast("Tensor", _WithoutGradient.apply(x, y))
    return y


def _runtime(file: str) -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        raise ConfigError(f"{file} is an ONNX file, and running it needs onnxruntime: {HINT}") from None
