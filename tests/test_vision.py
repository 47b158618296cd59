"""Libraries that import torchvision: where it works, where its operators are missing, where it is broken or absent."""

import subprocess
import sys

import pytest
from small import needs

# Stands for a library: what it takes of torchvision, and what of that it can use.
LIBRARY = """
from torchvision.transforms.functional import InterpolationMode, rotate
import torchvision.ops

def turn():
    return rotate(1, InterpolationMode.BILINEAR)
"""

WORKS = {
    "torchvision/__init__.py": "",
    "torchvision/ops.py": "",
    "torchvision/transforms/__init__.py": "",
    "torchvision/transforms/functional.py": """
class InterpolationMode:
    BILINEAR = 2

def rotate(image, mode):
    return image + mode
""",
}

# As beside a torch for which its operators were not built.
LACKS_OPERATORS = {
    **WORKS,
    "torchvision/__init__.py": """
import torch

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    return dets
""",
}

BROKEN = {**WORKS, "torchvision/__init__.py": "raise OSError('libcudart.so: cannot open shared object file')"}

BEGIN = """
import sys
from importlib.abc import MetaPathFinder

from resolute.models.vision import import_library

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
"""

USABLE = "assert import_library('odd').turn() == 3 and 'torchvision' in sys.modules"

STANDS_IN = """
paths = list(sys.meta_path)
odd = import_library("odd")
assert sys.meta_path == paths and not any(name.startswith("torchvision") for name in sys.modules)
try:
    odd.turn()
except ImportError as error:
    assert MESSAGE in str(error), error
else:
    raise AssertionError
try:
    import torchvision
except (OSError, ModuleNotFoundError) as error:
    assert MESSAGE in str(error), error
else:
    raise AssertionError
"""


def run(folder, code):
    (folder / "odd.py").write_text(LIBRARY)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{BEGIN}\n{code}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (WORKS, USABLE),
        (LACKS_OPERATORS, USABLE),
        (BROKEN, "MESSAGE = 'libcudart.so'" + STANDS_IN),
        ({}, "MESSAGE = 'No module named'; sys.meta_path.insert(0, Absent())" + STANDS_IN),
    ],
    ids=["works", "no operators", "broken", "absent"],
)
def test_a_library_is_imported_whatever_state_torchvision_is_in(tmp_path, files, code):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    run(tmp_path, code)


def test_spandrel_is_imported_without_torchvision(tmp_path):
    needs("spandrel", "zoo")
    run(
        tmp_path,
        "sys.meta_path.insert(0, Absent())\nspandrel = import_library('spandrel')\n"
        "assert len(list(spandrel.MAIN_REGISTRY)) > 30",
    )


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    code = """
sys.meta_path.insert(0, Absent())
paths = list(sys.meta_path)
try:
    import_library("no_such_library")
except ModuleNotFoundError as error:
    assert error.name == "no_such_library" and sys.meta_path == paths
else:
    raise AssertionError
"""
    run(tmp_path, code)
