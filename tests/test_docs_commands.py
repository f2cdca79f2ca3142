"""The commands that the documentation shows: each is one that its program takes."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from support.docs import PAGES, ROOT
from support.need import need
from support.server import TESTS

from graceful_asgi._asgi.precedence import OPTIONS
from graceful_asgi._cli.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = {option.variable for option in OPTIONS.values()} | {"GRACEFUL_CONTROL_DIR"}


def lines() -> Iterator[tuple[str, str]]:
    """Yield each line that may be a command, with its page; continued lines as one."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```(?:console|shell|)\n(.*?)^```$", text, re.M | re.S):
            for line in block.splitlines():
                yield page.name, line.removeprefix("$ ").strip()
        for line in re.findall(r"`((?:graceful-asgi|pip|make|uvicorn) [^`…]*main:app[^`]*)`", text):
            yield page.name, " ".join(line.split())
        for line in re.findall(r"`((?:pip install|make) [^`…]+)`", text):
            yield page.name, " ".join(line.split())


def commands(program: str) -> list[Any]:
    """Return the arguments of each command line of *program*, without what a shell does."""
    found: dict[str, list[str]] = {}
    for page, line in lines():
        words = shlex.split(line, comments=True) if line.startswith((program, "GRACEFUL")) else []
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        end = next((at for at, word in enumerate(words) if word in ("&", "|", ">", "&&")), None)
        if words[:1] == [program] and len(words) > 1:
            found[f"{page}: {shlex.join(words[:end])}"] = words[1:end]
    assert found, program
    return [pytest.param(words, id=name) for name, words in sorted(found.items())]


def parser_of(module: str, name: str = "command") -> Any:
    need(module.partition(".")[0])
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("words", commands("graceful-asgi"))
def test_a_command_of_ours_has_these_options(words: list[str]) -> None:
    name, *rest = words
    if name.startswith("-"):
        return
    if "COMMAND" in rest:  # it stands for one
        rest = [word if word != "COMMAND" else "true" for word in rest]
    context = parser_of(f"graceful_asgi._cli.{name}").make_context(
        name, rest, resilient_parsing=False
    )
    assert context.params


@pytest.mark.parametrize("words", commands("uvicorn"))
def test_uvicorn_has_these_options(words: list[str]) -> None:
    assert parser_of("uvicorn.main", "main").make_context("uvicorn", [*words]).params["app"]


@pytest.mark.parametrize("words", commands("gunicorn"))
def test_gunicorn_has_these_options(words: list[str]) -> None:
    parser = parser_of("gunicorn.config", "Config")().parser()
    assert parser.parse_args(words).args == ["main:app"]


@pytest.mark.parametrize("words", commands("pip"))
def test_an_extra_that_is_installed_is_one_that_there_is(words: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    for word in words:
        for named in re.findall(r"^graceful-asgi\[(.*)\]$", word):
            for extra in named.split(","):
                assert re.search(rf"^{extra} = ", extras, re.M), extra


def modules_of_tests() -> list[str]:
    """Return each command that runs a module of the tests, of the pages and of the Makefile."""
    found: set[str] = set()
    for path in (*PAGES, ROOT / "Makefile"):
        text = " ".join(path.read_text(encoding="utf-8").split()).replace("$(BIN)/", "")
        found |= set(re.findall(r"(?:PYTHONPATH=tests )?python -m (?:tests|bench)\.[\w.]+", text))
    return sorted(found)


@pytest.mark.parametrize("command", modules_of_tests())
def test_a_module_of_the_tests_can_be_run_by_its_command(command: str) -> None:
    """Most import `support`, which is found only with `PYTHONPATH=tests`."""
    path, _, module = command.rpartition("python -m ")
    folder = ROOT if module.startswith("tests.") else TESTS
    file = folder.joinpath(*module.rstrip(".").split(".")).with_suffix(".py")
    waiting, seen = [file if file.exists() else file.with_suffix("") / "__main__.py"], set()
    while waiting:
        seen.add(file := waiting.pop())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.level:
                found = file.parents[node.level - 1].joinpath(*node.module.split("."))
            else:
                found = TESTS.joinpath(*node.module.split("."))
                assert path or not found.with_suffix(".py").exists(), f"{file.name}: {node.module}"
            if found.with_suffix(".py").exists() and found.with_suffix(".py") not in seen:
                waiting.append(found.with_suffix(".py"))


@pytest.mark.parametrize("words", commands("make"))
def test_a_target_is_one_of_the_makefile(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{words[0]}:", makefile, re.M)


def test_every_variable_is_one_that_is_read() -> None:
    named = {
        (page.name, variable)
        for page in PAGES
        if page.name != "CHANGELOG.md"  # it may name one that is misspelt
        for variable in re.findall(r"\bGRACEFUL_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert {(page, variable) for page, variable in named if variable not in VARIABLES} == set()


def test_every_option_of_a_server_in_a_sentence_is_one_of_its_options() -> None:
    """Such as `--timeout-keep-alive`: an option that no program has would be of no use."""
    programs = [parser_of(f"graceful_asgi._cli.{name}") for name in COMMANDS]
    programs.append(parser_of("uvicorn.main", "main"))
    known = {
        flag
        for program in programs
        for option in program.params
        for flag in (*option.opts, *option.secondary_opts)
    }
    known |= set(parser_of("gunicorn.config", "Config")().parser()._option_string_actions)
    known |= {"--help", "--version"}
    for page in PAGES:
        if page.name in ("CHANGELOG.md", "CONTRIBUTING.md"):
            continue
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for flag in re.findall(r"`(--[a-z][a-z-]+)[ `=]", text):
            assert flag in known, f"{page.name}: {flag}"
