import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

from resolute.models import EDSR, Card
from resolute.models.weights import save_model

# Small tensors gain nothing from threads, and lose much where several processes share a machine.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("resolute", deadline=None)
settings.load_profile("resolute")


def declare_operators() -> torch.library.Library | None:
    """Declare two operators of torchvision where its own library does not load, as beside a torch for CPUs alone.

    Without them torchvision, and spandrel that imports it, cannot be imported; nothing here calls them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    with contextlib.suppress(OSError, StopIteration):
        torch.ops.load_library(next(Path(found.origin).parent.glob("_C*.so")))
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


OPERATORS = declare_operators()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of research images, which are not part of the repository."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RESOLUTE_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder of research images at {folder}; name one with RESOLUTE_DATA")
    return folder


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switch the import hook off, for tests of what a user without it gets to read."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a weights file of a small random EDSR x4, with weights large enough to be worth attacking."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EDSR(scale=4, blocks=1, channels=4, upsampler="direct")
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_model(model, path, Card(name="tiny", architecture=model.arguments(), scale=4, licence="MIT"))
    return path
