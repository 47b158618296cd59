"""Every code block of the documentation runs, in order, page by page, in a folder with what a reader would have.

The rule for what is in a block:

- ``python`` is executed, all blocks of a page in one namespace; one that begins with ``# NAME.py`` is that file.
- ``toml`` is read by what it belongs to, a study or a package's project file; a study is also written to NAME.toml.
- ``bash``, or no language: every line is a command. ``make``, ``python`` and ``pip`` lines are checked against the
  Makefile, the scripts and the extras. A ``resolute`` line is parsed by the real command line, so that a wrong command,
  option or type fails, and its study or recipe is looked up. Where it is quick and its files are there it is also
  executed, see ``is_run``.
- ``yaml`` is a job of a server, whose ``run`` lines are parsed likewise.
- ``json``, ``text`` and the like are looked at by people.

Commands in running text, in backticks, are parsed too, without asking for all arguments.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from resolute.cli import app
from resolute.cli.app import with_commands
from resolute.images import sample_image, write_png
from resolute.models import EDSR
from resolute.plugins import GROUPS
from resolute.studies.kinds import KINDS, RECORDS, read_study
from resolute.training.recipe import read_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
COMMANDS = with_commands().commands
QUICK = {"attack", "certify", "models", "report", "leaderboard", "survive", "twin", "faithful"}
SHELL = {"", "bash", "sh", "console"}
LOOKED_AT = {"json", "text", "csv", "markdown", "html", "sql"}
# Commands that a page must not stop running unnoticed.
RUN = {
    "docs/howto/ship.md": ["models", "attack", "attack", "study", "report", "survive", "twin", "faithful"],
    "docs/howto/benchmark.md": ["certify", "certify", "certify"],
    "docs/howto/research.md": ["attack", "attack", "certify", "attack", "study", "study", "report"],
}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_run(name, tmp_path, monkeypatch):
    blocks = [token for token in MarkdownIt().parse(text_of(name)) if token.type == "fence"]
    if not blocks:
        return
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    kinds, records = set(KINDS), set(RECORDS)
    namespace: dict[str, object] = {"__name__": "__main__"}
    ran: list[str] = []
    for block in blocks:
        language, first = block.info.strip(), block.map[0] + 1
        if language == "python" and (file := re.match(r"# (\w+\.py)\n", block.content)):
            Path(file[1]).write_text(block.content, encoding="utf-8")
        elif language == "python":
            # As many empty lines before it, so that an error names the page's own line.
            exec(compile("\n" * first + block.content, str(ROOT / name), "exec", dont_inherit=True), namespace)
        elif language == "toml":
            read_toml(block.content)
        elif language in SHELL:
            for line in lines_of(block.content):
                words = parsed(line)
                if words and is_run(words):
                    executed(words)
                    ran.append(words[0])
        elif language == "yaml":
            for line in re.findall(r"^- run: (.+)$", block.content, re.MULTILINE):
                parsed(line)
        else:
            assert language in LOOKED_AT, f"{name}:{first}: no rule for a block of {language!r}"
    assert ran == RUN.get(name, ran)
    # What a page registers is its own.
    for table, known in ((KINDS, kinds), (RECORDS, records)):
        for new in table.keys() - known:
            del table[new]


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_text_exist(name):
    text = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)
    for code in re.findall(r"`((?:resolute|make|python|pip) [^`\n]+)`", text):
        if "..." not in code:
            parsed(code, whole=False)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_example_of_a_command_can_be_typed(command):
    examples = re.findall(r"\[bold\](resolute .*?)\[/bold\]", COMMANDS[command].epilog)
    assert {parsed(example)[0] for example in examples} == {command}


@pytest.mark.parametrize(
    "line",
    [
        "resolute atack edsr-s photo.png",
        "resolute attack edsr-s photo.png --epsilom 4/255",
        "resolute attack edsr-s photo.png --steps many",
        "resolute attack edsr-s",
        "resolute study no-such-study",
        "resolute train no-such-recipe --data photos/",
        "make coffee",
        "python docs/no_such_script.py",
        "python docs/make_picture.py runs/demo --no-such-option",
        "pip install 'resolute[no-such-extra]'",
        "frobnicate",
    ],
)
def test_a_wrong_command_is_noticed(line):
    with pytest.raises(AssertionError):
        parsed(line)


def test_a_command_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(b"no image")
    with pytest.raises(AssertionError, match=r"photo\.png"):
        executed(["attack", "edsr-xs", "photo.png"])


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lines_of(block: str) -> list[str]:
    """Return the commands of a block, those that go on in the next line whole."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.strip() and not line.lstrip().startswith("#")]


def furnish(folder: Path) -> None:
    """Put what the pages speak of into a folder, small: photographs, a data set and a checkpoint."""
    photo = sample_image("coffee")
    # As large as the metrics need.
    for number, path in enumerate(("photo.png", "photos/first.png", "BSD100/101085.png"), start=1):
        write(folder / path, photo[:, 100 * number : 100 * number + 32, 100:132])
    model = EDSR(scale=4, blocks=1, channels=4)
    torch.save(model.state_dict(), folder / "my_edsr_x4.pt")


def write(path: Path, image: torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    write_png(path, image)


def read_toml(text: str) -> None:
    table = tomllib.loads(text)
    if "project" in table:
        added = set(table["project"].get("entry-points", {}))
        assert added <= {f"resolute.{group}" for group in GROUPS} | set(GROUPS), added
    else:
        Path(f"{table['name']}.toml").write_text(text, encoding="utf-8")
        (read_study if "models" in table or "attacks" in table else read_recipe)(f"{table['name']}.toml")


def parsed(line: str, *, whole: bool = True) -> list[str]:
    """Check a line, and return the words of a command of resolute; of other programs nothing.

    Args:
        line: as typed.
        whole: arguments may not be missing.
    """
    # Within a word, as in FILE#x4, it begins no comment.
    words = shlex.split(re.sub(r"(^|\s)#.*", "", line))
    if words[0] == "torchrun":
        words = words[words.index("-m") + 1 :]
    program, rest = words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE)
        assert set(rest) <= set(targets), line
    elif Path(program).name.startswith("python"):
        script = next((word for word in rest if word.endswith(".py")), None)
        if script is not None:
            assert (ROOT / script).is_file(), line
            assert all(word.split("=")[0] in text_of(script) for word in rest if word.startswith("--")), line
    elif Path(program).name == "pip":
        extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
        named = re.findall(r"\[([\w,-]+)\]", line)
        assert all(extra in extras for each in named for extra in each.split(",")), line
    else:
        assert program == "resolute", f"no rule for {line!r}"
        parse(rest, line, whole)
        return rest
    return []


def parse(words: list[str], line: str, whole: bool) -> None:
    if not words or words[0] in ("--help", "--version", "--install-completion", "--show-completion"):
        return
    assert words[0] in COMMANDS, line
    try:
        context = COMMANDS[words[0]].make_context(words[0], list(words[1:]))
    except Exception as error:
        kind = type(error).__name__  # Typer carries a Click of its own, whose errors have no public name
        if kind == "Exit" or (kind == "MissingParameter" and not whole):
            return
        raise AssertionError(f"{line}: {kind}: {error}") from None
    source = context.params.get("source") or context.params.get("recipe") or ""
    # A name in capitals stands for the reader's own, and so does a file that is not in the repository.
    if source and not source.isupper() and not (source.endswith(".toml") and not (ROOT / source).exists()):
        path = str(ROOT / source) if source.endswith(".toml") else source
        try:
            (read_study if words[0] == "study" else read_recipe)(path)
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from None


def is_run(words: list[str]) -> bool:
    """Whether a command is executed: a quick one whose files are there, or a study that the page itself made small."""
    if words[0] not in COMMANDS:
        return False
    params = COMMANDS[words[0]].make_context(words[0], list(words[1:])).params
    given = [value for name, value in params.items() if name != "out"]
    if words[0] == "study" and Path(params["source"]).exists():
        given.append(read_study(params["source"]).models)
    values = [item for value in given for item in (value if isinstance(value, list | tuple) else [value])]
    named = [str(value) for value in values if isinstance(value, Path) or names_file(value)]
    files = [re.sub(r"\.py:\w+$", ".py", name) for name in named]
    if not all(Path(file).exists() for file in files):
        return False
    small = words[0] == "study" and not params["ray"] and bool(params["budget"] or Path(params["source"]).exists())
    return small or words[0] in QUICK


def names_file(value: object) -> bool:
    return isinstance(value, str) and re.search(r"\.[a-z]\w*$|/$|\.py:", value) is not None


def executed(words: list[str]) -> None:
    # A thousand noisy copies say no more of a command than fifty.
    fewer = ["--samples", "50"] if words[0] == "certify" and "--samples" not in words else []
    result = CliRunner().invoke(app, [*words, *fewer])
    assert result.exit_code == 0, f"resolute {shlex.join(words)}: {result.output} {result.exception!r}"
