"""ONNX files as models: what an attacker without gradients sees."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError, ConfigError, ImageError
from resolute.images import sample_image
from resolute.models.base import Card, Scorer, ScorerCard, SplitRestorer
from resolute.models.onnx_file import read_onnx
from resolute.models.onnx_session import Session
from resolute.models.parts import file_sha256
from resolute.models.sizes import Sizes, find_sizes, pad, upscaled_by
from resolute.models.weights import card_of

# Under which names a file written by Resolute carries its card and what it is.
CARD, KIND = "resolute.card", "resolute.kind"

# Height and width of the samples that tell which images a restorer takes, and of those for a metric.
_ODD, _EVEN = (13, 65), (64, 64)

ADVICE = (
    "an ONNX file has no gradient to climb: attack it with square or noise, search on another model with transfer, or "
    "load the PyTorch weights instead"
)


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
    """A super-resolution model in an ONNX file. Its feature layer is its output, for nothing inside can be seen.

    What the file needs is found by trying: one channel, sizes that are a multiple of something, one image a call. Of
    several outputs it is the one that is an image.

    Args:
        session: runs the file.
        called: what errors call it.
        sha256: of the file.

    Raises:
        CheckpointError: the file does not map images to larger ones.
    """

    feature_layer = "output"

    def __init__(self, session: Session, called: str, sha256: str = "") -> None:
        super().__init__(0)
        self.session = session
        self.output = torch.nn.Identity()
        self.called = called
        self._sha256 = sha256
        self._gray, self._sizes = False, Sizes()
        self._adapt()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of images that it takes; None where it takes any."""
        return None if self.session.size == (None, None) else _size(self.session, _ODD)

    def arguments(self) -> dict[str, object]:
        return {"class": "OnnxRestorer", "sha256": self._sha256}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        height, width = x.shape[-2:]
        images = self._channels(pad(x, *self._sizes.lacks(width, height)))
        y = self.session(images)
        y = y.reshape(len(x), 3, *y.shape[-2:])[..., : height * self.scale, : width * self.scale]
        return self.output(_without_gradient(x, y))

    def reconstruct(self, phi: Float[Tensor, "b 3 sh sw"]) -> Float[Tensor, "b 3 sh sw"]:
        return phi

    def _channels(self, x: Tensor) -> Tensor:
        """Return the channels one by one where the file takes one."""
        return x.flatten(0, 1).unsqueeze(1) if self._gray else x

    def _adapt(self) -> None:
        images, why = _samples(self.session, _ODD), ""
        for channels in self.session.channels:
            self._gray = channels == 1
            if self.size is None:
                self._sizes, why = find_sizes(images[:1], self._misfit)
            else:
                why = self._misfit(images[:1])
            if not why:
                break
        else:
            raise CheckpointError(f"{self.called}: {why}")
        self.session.take_batches(self._channels(pad(images, *self._sizes.lacks(images.shape[-1], images.shape[-2]))))

    def _misfit(self, images: Tensor) -> str:
        """Return what is wrong with the outputs for one image of this size; empty if nothing is."""
        x = self._channels(images)[:1]
        try:
            found = self.session.outputs(x)
        except ImageError as error:
            return str(error)
        fitting = [index for index, y in enumerate(found) if upscaled_by(y, x)]
        if len(fitting) > 1:
            raise CheckpointError(
                f"{self.called} gives {len(fitting)} images; export it with the one output that counts"
            )
        if not fitting:
            shapes = " and ".join(str(tuple(y.shape)) for y in found[:3])
            return f"it turns {tuple(x.shape)} into {shapes}, and no larger image"
        self.session.taken = fitting[0]
        self.scale = upscaled_by(found[fitting[0]], x)
        return ""


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
    model = OnnxRestorer(session, path.name, sha256)
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
    _find_score(session, path.name)
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


def _find_score(session: Session, file: str) -> None:
    """Find the output that is one score an image, and whether the file takes several images at once."""
    if 3 not in session.channels:
        raise CheckpointError(f"{file} scores images of one channel; export it with a conversion from RGB inside")
    images = _samples(session, _EVEN)
    try:
        found = session.outputs(images[:1])
        scores = [index for index, y in enumerate(found) if y.numel() == 1]
        if len(scores) != 1:
            shapes = " and ".join(str(tuple(y.shape)) for y in found[:3])
            raise CheckpointError(f"{file} turns an image into {shapes}, and not into one score")
        session.taken = scores[0]
        session.take_batches(images)
    except ImageError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _opened(path: Path, kind: str) -> tuple[Session, str, dict[str, Any] | None]:
    # First, since it says which weights are missing.
    sha256 = file_sha256(path)
    session = Session(read_onnx(path))
    said = session.metadata.get(KIND, kind)
    if said != kind:
        other = "load_scorer" if said == "scorer" else "load"
        raise CheckpointError(f"{path.name} holds a {said[:40]}; load it with {other}")
    try:
        facts: Any = json.loads(session.metadata.get(CARD, "null"))
    except (ValueError, RecursionError):
        facts = {}
    # One that is no mapping has nothing that a card needs.
    return session, sha256, facts if isinstance(facts, dict | None) else {}


def _kept(card: Card, facts: dict[str, Any], path: Path) -> Card:
    name, licence, training = facts.get("name"), facts.get("licence"), facts.get("training")
    if not (isinstance(name, str) and isinstance(licence, str) and isinstance(training, dict)):
        raise CheckpointError(f"{path.name} carries a damaged model card; export it again")
    known = cast("dict[str, object]", training)
    return dataclasses.replace(card, name=f"{name}-onnx", licence=licence, training=known)


def _size(session: Session, otherwise: tuple[int, int]) -> tuple[int, int]:
    height, width = (told or other for told, other in zip(session.size, otherwise, strict=True))
    return height, width


def _samples(session: Session, otherwise: tuple[int, int]) -> Float[Tensor, "2 3 h w"]:
    """Return two images of a size that the file takes, as far as it says."""
    height, width = _size(session, otherwise)
    photos = [sample_image(name)[:, 100 : 100 + height, 100 : 100 + width] for name in ("coffee", "chelsea")]
    return torch.stack([pad(one[None], width - one.shape[-1], height - one.shape[-2])[0] for one in photos])


def _without_gradient(x: Tensor, y: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled():
        return cast("Tensor", _WithoutGradient.apply(x, y))
    return y
