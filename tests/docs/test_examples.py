"""The examples in the pages: shells can read them, commands take them, YAML means something."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from serve_app.access.keys import commands as key_commands
from serve_app.access.keys import file as key_file
from serve_app.capacity.workload.scenario import Scenario
from serve_app.settings import Settings
from tests.support import pages
from tests.support.pages import PAGES, ROOT, Example

SHELL = pages.examples("sh")
COMMANDS = [(example, words) for example in SHELL for words in pages.commands(example)]
PYTHON = [(e, words[2:]) for e, words in COMMANDS if words[:2] == ["python", "-m"]]


@pytest.mark.parametrize("example", SHELL, ids=str)
def test_a_shell_can_read_it(example: Example) -> None:
    """No quote is open, no line cut."""
    subprocess.run(["bash", "-n"], input=example.text, text=True, check=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that looks like the repository, and may be written to."""
    for entry in ROOT.iterdir():
        if entry.name not in ("results", "build"):
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("example", "words"), PYTHON, ids=lambda value: str(value)[:50])
def test_the_command_takes_it(example: Example, words: list[str], folder: Path) -> None:
    """A command line of a page is one that its command can parse."""
    module, *arguments = words
    command = click_command(module)
    if command is None:
        assert options(arguments) <= described_options(module, arguments), example
        return
    for argument in arguments:
        pretend(folder, argument)
    parse(command, arguments)


def test_pages_say_which_environment_has_the_commands() -> None:
    """`make` needs no activated environment, `python -m …` in a terminal does."""
    named = {example.page for example, _ in PYTHON}
    assert [page for page in sorted(named) if _ACTIVATE not in (ROOT / page).read_text()] == []


_ACTIVATE = ". .venv/bin/activate"


def test_packages_come_in_their_pinned_versions() -> None:
    """Every `pip install` of this project takes the constraints."""
    installs = [words for _, words in COMMANDS if words[:2] == ["pip", "install"]]
    own = [words for words in installs if re.search(r"\[\w+(,\w+)*\]", words[-1])]
    assert own
    assert [words for words in own if "constraints.txt" not in words] == []


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_options_in_sentences_exist(page: Path) -> None:
    """`python -m …` in a sentence names commands and options that there are."""
    for code in pages.inline(page):
        if not code.startswith("python -m "):
            continue
        module, *arguments = code.split()[2:]
        command = click_command(module)
        if isinstance(command, click.Group) and arguments:
            command = subcommand(command, arguments[0])
        known = option_names(command) if command else described_options(module, arguments)
        assert options(arguments) <= known, code


def click_command(module: str) -> click.Command | None:
    """The command of `python -m module`; None where it is no click command."""
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no module {module}"
    if module.startswith("tests."):
        return None  # a benchmark's import changes the environment
    if spec.submodule_search_locations is not None:
        module = f"{module}.__main__"
    commands = [v for v in vars(importlib.import_module(module)).values() if is_command(v)]
    return min(commands, key=lambda command: not isinstance(command, click.Group), default=None)


def is_command(value: Any) -> bool:
    return isinstance(value, click.Command)


def parse(command: click.Command, arguments: list[str]) -> None:
    """Raise click.UsageError unless `command` takes `arguments`; run nothing."""
    if isinstance(command, click.Group):
        command, arguments = subcommand(command, arguments[0]), arguments[1:]
    command.make_context(command.name, arguments)


def subcommand(group: click.Group, name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command, f"there is no command {name}"
    return command


def pretend(folder: Path, argument: str) -> None:
    """Make the file or folder that `argument` names, unless it is there."""
    path = folder / argument.partition("=")[2] if "=results/" in argument else folder / argument
    if path.exists() or argument.startswith(("-", "http")):
        return
    if path.suffix in (".yaml", ".csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    elif "results/" in argument:
        path.mkdir(parents=True)


def options(arguments: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in arguments if word.startswith("--")}


def option_names(command: click.Command) -> set[str]:
    return {"--help"} | {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def described_options(module: str, arguments: list[str]) -> set[str]:
    """The options in the help of a command that is no click command, if it is given any."""
    if not options(arguments):
        return set()  # it may know no --help, and do its work instead
    command = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return set(re.findall(r"--[a-z-]+", shown.stdout))


@pytest.mark.parametrize("example", pages.examples("yaml"), ids=str)
def test_yaml_means_something(example: Example) -> None:
    """A Serve config, settings, a scenario, a file of keys are valid; an overlay names what is."""
    value = yaml.safe_load(example.text)
    if "applications" in value:
        for application in value["applications"]:
            assert application["import_path"] == "serve_app:app"
            Settings.model_validate(application["args"])
    elif value.get("kind") == "Kustomization":
        here = ROOT / Path(example.text.split()[1]).parent
        for path in [*value["resources"], *value["components"]]:
            assert (here / path).resolve().exists(), path
    elif value.keys() <= Settings.model_fields.keys():
        Settings.model_validate(value)
    elif example.page == "docs/keys.md":
        assert key_file.parse_keys(example.text, Path("keys")).entries
    else:
        Scenario.model_validate(value)


def test_paths_in_commands_exist() -> None:
    """What kubectl, locust, k6 and sed are given is in the repository."""
    tools = {"kubectl", "locust", "k6", "sed"}
    paths = {
        word
        for _, words in COMMANDS
        if words[0] in tools
        for word in words[1:]
        if word.startswith(("kuberay/", "locustfiles/", "k6/"))
    }
    assert paths
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_scripts_in_commands_take_their_options() -> None:
    """`python docs/…py` names a script that is there, and options that it has."""
    scripts = [words[1:] for _, words in COMMANDS if words[0] == "python" and words[1] != "-m"]
    assert scripts
    for script, *arguments in scripts:
        text = (ROOT / script).read_text()
        assert [option for option in options(arguments) if f'"{option}"' not in text] == [], script


def test_commands_for_keys_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the page about keys work, one after the other."""
    monkeypatch.setenv("SERVE_APP_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    shown = {}
    for example, (_, *arguments) in PYTHON:
        if example.page == "docs/keys.md" and arguments[0] == "keys" and "--now" not in arguments:
            assert key_commands.main(arguments[1:]) == 0, arguments
            shown[arguments[1]] = capsys.readouterr().out
    assert shown.keys() == {"new", "list", "rotate", "revoke"}
    assert re.fullmatch(r"sk-llm-[0-9a-f]{40}\n", shown["new"])
    assert "alice" in shown["list"]


def test_options_of_locust_exist() -> None:
    """Options of the load file, in examples and in tables, are its own or Locust's."""
    named = options([word for _, words in COMMANDS if words[0] == "locust" for word in words])
    page = ROOT / "docs" / "load-testing.md"
    named |= options([word for code in pages.inline(page) for word in code.split()])
    assert named - load_options() - ALSO == set()


# Of Locust itself, of pip, and of this project's own commands, in the same page.
ALSO = {"--headless", "--processes", "--master", "--worker", "--chat-help"}


def load_options() -> set[str]:
    """As the load file's own help has them."""
    locust = Path(sys.executable).with_name("locust")
    command = [str(locust), "-f", "locustfiles/chat.py", "--chat-help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return set(re.findall(r"--[a-z-]+", shown.stdout))


def test_the_kept_sweep_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example that prints the records of a sweep prints its conclusions."""
    page = "docs/examples/modelled-gpu/README.md"
    (example,) = (example for example in pages.examples("python") if example.page == page)
    monkeypatch.chdir(ROOT)
    exec(example.text, {})
    assert "Saturated at" in capsys.readouterr().out


def test_python_examples_are_python() -> None:
    """Every Python example compiles, and what it imports of this project exists."""
    for example in pages.examples("python"):
        compile(example.text, str(example), "exec")
        for line in example.text.splitlines():
            if line.startswith("from kuberay"):
                exec(line, {})
