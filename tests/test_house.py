"""Rules of the house that no linter knows."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resolute

SOURCE = Path(resolute.__file__).parent
ROOT = Path(__file__).parents[1]
FILES = sorted(SOURCE.rglob("*.py"))

# Lower layers first; a module may import from its own layer and from those before it.
LAYERS = (
    {"errors", "randomness", "figures", "chart"},
    {
        "files",
        "runtime",
        "provenance",
        "toml",
        "importing",
        "of_file",
        "offline",
        "plugins",
        "printing",
        "shipped",
        "table",
    },
    {"corruptions", "damage", "folders", "images", "marks", "pairing", "resemblance", "resize", "notebook"},
    {"models"},
    {"attacks", "defences", "measure", "export"},
    {"certificates"},
    {"training", "studies"},
    {"engine"},
    {"report", "terminal"},
    {"leaderboard", "serve"},
    {"cli", "__main__"},
)


def layer(module: str) -> int:
    return next(rank for rank, names in enumerate(LAYERS) if module in names)


@pytest.fixture(scope="module")
def code() -> dict[Path, list[ast.AST]]:
    """All nodes of each file."""
    return {path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in FILES}


def imports(nodes: list[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("resolute."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "resolute":
            found |= {alias.name for alias in node.names}
    return found


def test_arrows_run_downwards(code):
    for path in FILES:
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own == "__init__":  # the names of all packages, imported when they are used
            continue
        upwards = {name for name in imports(code[path]) if layer(name) > layer(own)}
        assert not upwards, f"{path} imports {upwards}"


def test_no_two_files_import_each_other(code):
    modules = {module_of(path): path for path in FILES}
    found = {name: imported_files(code[path], modules) for name, path in modules.items()}
    mutual = {(one, other) for one in found for other in found[one] if one < other and one in found[other]}
    assert not mutual


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_files(nodes: list[ast.AST], modules: dict[str, Path]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
            # A package that only hands a file of its own on is no import of all that it names.
            found |= inside or ({node.module} & modules.keys())
    return found


def test_files_are_plain():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bhasattr\(", text), path
        assert not re.search(r"import \*", text), path


def test_all_is_what_type_checkers_see():
    tree = ast.parse((SOURCE / "__init__.pyi").read_text(encoding="utf-8"))
    names = [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(resolute.__all__) == sorted([*names, "__version__"])
    assert len(set(names)) == len(names) <= 75
    assert set(dir(resolute)) <= set(resolute.__all__)


@pytest.mark.parametrize("name", [name for name in resolute.__all__ if name != "__version__"])
def test_public_names_are_documented(name):
    assert (getattr(resolute, name).__doc__ or "").strip()


@pytest.mark.parametrize(
    "name", ["load", "load_scorer", "certify", "train", "harden", "run", "compare", "write_report"]
)
def test_verbs_stay_callable_when_everything_is_imported(name):
    for file in FILES:
        if file.name != "__main__.py" and "serve" not in file.parts:
            importlib.import_module(".".join(file.relative_to(SOURCE.parent).with_suffix("").parts))
    for name in ("load", "load_scorer", "certify", "train", "harden", "run", "compare", "write_report"):
        assert callable(getattr(resolute, name))


def test_the_package_does_not_import_torch():
    code = "import sys, resolute; assert not {'torch', 'numpy'} & set(sys.modules); resolute.load; resolute.models.EDSR"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_a_model_does_not_import_the_compiler_of_torch():
    """Some arithmetic without memory, where a network is counted before it is built, costs two seconds of imports."""
    code = """
import sys, resolute
for name in ("edsr-xs", "rcan-xs", "srresnet-xs", "msrn-xs", "carn-xs"):
    resolute.load(name)
for name in ("quality-m", "quality-s"):
    resolute.load_scorer(name)
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_matches_the_metadata_and_the_changelog():
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{resolute.__version__}"' in metadata
    assert f"## {resolute.__version__}\n" in changelog
    assert f"version: {resolute.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def classes() -> list[type]:
    found = []
    for path in (SOURCE / "models").glob("*.py"), (SOURCE / "defences").glob("*.py"), (SOURCE / "attacks").glob("*.py"):
        for file in path:
            module = importlib.import_module(f"resolute.{file.parent.name}.{file.stem}".removesuffix(".__init__"))
            found += [
                one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__
            ]
    return found


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__qualname__)
def test_no_class_overrides_a_method_that_does_something(kind):
    for base in kind.__mro__[1:]:
        if base.__module__.startswith("resolute."):
            own = {name for name in vars(kind).keys() & vars(base).keys() if not name.startswith("__")}
            methods = {name for name in own if callable(vars(base)[name]) or isinstance(vars(base)[name], property)}
            concrete = {name for name in methods if not getattr(vars(base)[name], "__isabstractmethod__", False)}
            assert not concrete, f"{kind.__name__} overrides {concrete} of {base.__name__}"


def test_one_file_knows_of_torchvision():
    assert [path.name for path in FILES if "torchvision" in path.read_text(encoding="utf-8")] == ["vision.py"]


def test_nobody_is_sent_to_a_page_that_pip_leaves_out(code):
    """What the package says to a person explains itself, for the pages are in the repository alone."""
    for path in FILES:
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = {id(node.body[0].value) for node in code[path] if isinstance(node, documented)
                      and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
        said = [
            node.value for node in code[path]
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        ]  # fmt: skip
        assert not [text for text in said if re.search(r"\bdocs/\w+\.md", text) and "--out docs" not in text], path
    for path in SOURCE.rglob("*.j2"):
        assert not re.search(r"\bdocs/|\.md\b", path.read_text(encoding="utf-8")), path
