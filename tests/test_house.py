"""The house keeps its shape: what is packaged, who may import whom, what is generated, and what the docs say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from mulligan.activities.images.build.host import PACKAGE_OF
from mulligan.api.cli.main import cli
from mulligan.api.config import Settings

ROOT = Path(__file__).parent.parent
ROOMS = {"mulligan.v1": "proto/mulligan/v1", "mulligan.activities": "activities"}
ROOMS |= {"mulligan.workflows": "workflows", "mulligan.api": "api"}
BIN = Path(sys.executable).parent
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def run(*command: str | Path) -> None:
    """Run a check of the house; its words are the failure's."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def packages_on_disk() -> set[str]:
    """Every folder with an `__init__.py`, as the package that it is mapped to."""
    found = set()
    for package, folder in ROOMS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    return found


def folders_with_code() -> set[str]:
    """Every folder with a Python file, as the package that it would be."""
    found = set()
    for package, folder in ROOMS.items():
        for file in (ROOT / folder).rglob("*.py"):
            found.add(".".join((package, *file.parent.relative_to(ROOT / folder).parts)))
    return found


def test_the_package_list_is_what_is_on_disk() -> None:
    """A package that is not listed would be missing from the wheel, and only there."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages_on_disk() == folders_with_code()
    assert len(listed) == len(set(listed))


def test_data_files_are_packaged() -> None:
    """Every file beside the code that is not Python is matched by a pattern of its package."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    forgotten = []
    for package, folder in ROOMS.items():
        for file in (ROOT / folder).rglob("*"):
            inner = ".".join((package, *file.parent.relative_to(ROOT / folder).parts))
            source = file.suffix in {".py", ".pyc", ".pyi", ".proto"}
            if file.is_file() and not source and not any(file.match(each) for each in patterns.get(inner, [])):
                forgotten.append(str(file.relative_to(ROOT)))
    assert forgotten == []


def test_every_module_says_what_it_is_for() -> None:
    """The first statement of each module is its docstring."""
    silent = []
    for folder in (*list(ROOMS.values())[1:], "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text().lstrip()
            if text and not text.startswith(('"""', "r'''", 'r"""')):
                silent.append(str(file.relative_to(ROOT)))
    assert silent == []


def test_imports_point_down() -> None:
    """The layers and the walls between the rooms are those of pyproject.toml."""
    run(BIN / "lint-imports", "--no-cache")


def test_the_generated_code_is_up_to_date() -> None:
    """Generating it again changes nothing."""
    run("deploy/check_generated.sh", BIN.parent)


@pytest.mark.parametrize("words", [("lint",), ("format", "--diff", "--exit-code")])
def test_the_contract_is_clean(words: tuple[str, ...]) -> None:
    """`buf` finds nothing to say about the protos."""
    run(BIN / "buf", *words)


def test_the_shell_scripts_are_clean() -> None:
    """shellcheck finds nothing to say about them."""
    run("shellcheck", *(ROOT / "deploy").glob("*.sh"), ROOT / ".ci" / "run")


def fenced_lines() -> list[tuple[str, str]]:
    """(document, line) of everything in the fenced blocks of the docs that could be a command."""
    found = []
    for document in DOCS:
        for block in re.findall(r"^```(?:sh|console|text)?\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            found += [(document.name, line.strip().removeprefix("$ ")) for line in block.splitlines()]
    return found


def test_every_make_target_of_the_docs_exists() -> None:
    """`make <target>` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(document.read_text() for document in DOCS)
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named - targets == set()


def test_every_command_and_option_of_the_docs_exists() -> None:
    """`mulligan <words> --option` in a document is a command with that option."""
    wrong = []
    inline = [(d.name, each) for d in DOCS for each in re.findall(r"`(mulligan [^`\n]+)`", d.read_text())]
    for document, line in [*fenced_lines(), *inline]:
        if line.startswith("mulligan ") and (why := unknown(line.split()[1:])):
            wrong.append(f"{document}: {line}: {why}")
    assert wrong == []


def unknown(words: list[str]) -> str:
    """What of a command line the tool does not know; empty when it knows all."""
    command: click.Command = cli
    context = click.Context(cli, info_name="mulligan")
    for word in words:
        if isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"):
            found = command.get_command(context, word)
            if found is None:
                return f"no command {word}"
            command = found
        elif word.startswith("--"):
            options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0].rstrip(".,") not in options | {"--help", "--version"}:
                return f"no option {word}"
    return ""


def test_every_setting_of_the_docs_exists() -> None:
    """`MULLIGAN_...` in a document is a setting."""
    known = {f"MULLIGAN_{name.upper()}" for name in Settings.model_fields}
    text = "\n".join(document.read_text() for document in DOCS)
    assert set(re.findall(r"\bMULLIGAN_[A-Z_]+\b", text)) - known == set()


def test_the_builders_programs_are_installed_by_make() -> None:
    """Every Debian package that an image build calls for is one that `make system` installs."""
    script = (ROOT / "deploy" / "packages.sh").read_text().split()
    assert set(PACKAGE_OF.values()) - set(script) == set()
