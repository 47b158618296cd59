import gc
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright
from small import grid

import resolute
from resolute import run
from resolute.images import sample_image, write_png
from resolute.models import EDSR, Card
from resolute.models.weights import save_model

# Small tensors gain nothing from threads, and lose much where several processes share a machine.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# No table is cut, whoever runs the tests; it is read once, when the terminal's module is imported.
os.environ["COLUMNS"] = "200"

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("resolute", deadline=None)
settings.load_profile("resolute")


# What is imported and collected stays: to look through it for garbage again and again is a tenth of all the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but not among what is there by now."""
    gc.freeze()
    gc.enable()


class Examples:
    """Imports no module for its examples that has none: each process would import all of them, Gradio included."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        inside = Path(resolute.__file__).parent in collection_path.parents and collection_path.suffix == ".py"
        return True if inside and ">>>" not in collection_path.read_text(encoding="utf-8") else None


def pytest_configure(config: pytest.Config) -> None:
    """Ignore modules of the package too; a file like this one could speak of its own folder alone."""
    config.pluginmanager.register(Examples())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """Return the folder of a finished grid; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    run(grid(folder), folder / "run")
    return folder / "run"


@pytest.fixture
def rng(seed: int) -> Iterator[random.Random]:
    """Return the generator of a seed, see ``odd.tried``; what hangs on what it makes fails."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(90)
    yield random.Random(seed)
    signal.alarm(0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of two small images."""
    for name in ("astronaut", "coffee"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:164, 150:199])
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser that asks nothing of the network by itself."""
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser found; install one of {', '.join(names)}")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    arguments += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()
