"""ONNX files as functions of images, run by onnxruntime, the optional extra [onnx]."""

from __future__ import annotations

import re
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError, ImageError
from resolute.models.onnx_file import OnnxFile, library

_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


@final
class Session:
    """An onnxruntime session as a function of images, without a gradient.

    Attributes:
        metadata: what the file says about itself.
        channels: that the file may take, as far as it says.
        size: height and width that it is made for, each None where it takes any.
        batch: of the images that it is made for, None where it takes any.
        taken: which of its outputs counts.
    """

    def __init__(self, file: OnnxFile) -> None:
        runtime = library("onnxruntime", file.name)
        options: Any = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(
                file.model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime has a class of its own for every way in which a file is broken.
            raise CheckpointError(
                f"{file.name} is no ONNX file that onnxruntime can run: {_said(error)}; export it again, with standard "
                "operators of opset 20 or below"
            ) from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = _shape_of_images(inputs, file.name)
        self._dtype = _TYPES[inputs[0].type]
        whole = next((one for one in outputs if one.type not in _TYPES), None)
        if whole is not None:
            raise CheckpointError(
                f"{file.name} gives {whole.name} as {whole.type}; export it with outputs of float32, on the scale of "
                "its input"
            )
        self._input = inputs[0].name
        self.taken = 0
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        known = [side if isinstance(side, int) else None for side in shape]
        self.batch, self.size = known[0], (known[2], known[3])
        self.channels = (3, 1) if known[1] is None else (known[1],)

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Tensor:
        """Return the output that counts.

        Raises:
            ImageError: the images do not have the size that the file is made for, or it fails on them.
        """
        found = [self.outputs(some)[self.taken] for some in x.split(self.batch or len(x))]
        return torch.cat(found).to(x.device)

    def outputs(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return all outputs, as float32, for no more images than the file takes at once.

        Raises:
            ImageError: as above.
        """
        self._require_size(x)
        images = x.detach().to("cpu", self._dtype).contiguous()
        lacking = (self.batch or len(x)) - len(x)
        if lacking:
            images = torch.cat([images, images[-1:].expand(lacking, -1, -1, -1)])
        try:
            found = self._session.run(None, {self._input: images.numpy()})
        except Exception as error:
            raise ImageError(f"the ONNX file fails on images of shape {tuple(x.shape)}: {_said(error)}") from None
        tensors = [torch.from_numpy(one).float() for one in found]
        return [one[: len(x)] if lacking and one.ndim else one for one in tensors]

    def _require_size(self, x: Tensor) -> None:
        if any(side not in (None, got) for side, got in zip(self.size, x.shape[-2:], strict=True)):
            height, width = ("any" if side is None else side for side in self.size)
            got = f"{x.shape[-1]} x {x.shape[-2]}"
            raise ImageError(
                f"this ONNX file takes images of {width} x {height} pixels alone, not {got}; export it for any size, "
                "or crop the images"
            )

    def take_batches(self, x: Float[Tensor, "b c h w"]) -> None:
        """Give the file one image at a time from now on where it does not do with several what it does with each."""
        if self.batch is None:
            alone = torch.cat([self(one) for one in x.split(1)])
            try:
                together = self(x)
                same = together.shape == alone.shape and torch.allclose(together, alone, rtol=1e-2, atol=1e-2)
            except ImageError:
                same = False
            self.batch = None if same else 1


def _shape_of_images(inputs: Any, file: str) -> list[object]:
    """Return batch, channels, height and width, as far as the file says, or refuse it."""
    found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)[:200]
    shape: list[object] = list(inputs[0].shape) if len(inputs) == 1 else []
    if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        raise CheckpointError(
            f"{file} takes {found}, channels last; export it with channels first, (batch, 3, height, width), as "
            "tf2onnx does with --inputs-as-nchw and --outputs-as-nchw"
        )
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] not in (1, 3)):
        raise CheckpointError(f"{file} takes {found}; Resolute needs one input, (batch, 3 or 1, height, width)")
    if inputs[0].type not in _TYPES:
        raise CheckpointError(f"{file} takes {found}; export it with an input of float32, with images in [0, 1]")
    return shape


def _said(error: Exception) -> str:
    """Return what onnxruntime says, without where in its sources that is written."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:", "", " ".join(str(error).split()))
    text = re.sub(r"\S+\.(?:cc|h|cpp):\d+ (?:[^()]*\(.*?\)|\w+) (?=\S)", "", text)
    return text[:300].rstrip(".") or type(error).__name__
