import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of research images, which are not part of the repository."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("RESOLUTE_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder of research images at {folder}; name one with RESOLUTE_DATA")
    return folder
