import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from resolute.models import EDSR, Card
from resolute.models.weights import save_model

# Small tensors gain nothing from threads, and lose much where several processes share a machine.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


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
