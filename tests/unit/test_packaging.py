"""The packages that are installed, and by whom."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"([\w.-]+)(?:\[\w,]+)?==([\w.]+)")


def _pins(lines: list[str]) -> dict[str, str]:
    matches = (PIN.match(line) for line in lines)
    return {match[1].lower(): match[2] for match in matches if match}


def test_constraints_have_every_pin_of_the_project() -> None:
    """`make lock` was run after the last change of a version."""
    extras = PROJECT["optional-dependencies"].values()
    wanted = _pins([*PROJECT["dependencies"], *(pin for extra in extras for pin in extra)])
    locked = _pins((ROOT / "constraints.txt").read_text().splitlines())
    assert wanted == {name: locked.get(name) for name in wanted}


def test_the_cluster_client_needs_no_ray() -> None:
    """A kubectl-like tool runs where neither Ray nor the service's libraries are installed."""
    absent = ["ray", "httptools", "httpx", "starlette", "uvloop", "aiohttp", "numpy"]
    paths = sorted(path.relative_to(ROOT) for path in (ROOT / "kuberay").rglob("*.py"))
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); "
        f"import importlib; [importlib.import_module(name) for name in {modules!r}]; "
        "from kuberay.changes import serve_schema; serve_schema.errors({'applications': []}); "
        "from kuberay.commands import commands; commands(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
TOP_LEVEL = {
    *(".ci", "docs", "k6", "kuberay", "locustfiles", "serve_app", "tests"),
    *(".dockerignore", ".gitattributes", ".gitignore", "Dockerfile", "Makefile"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md"),
    *("constraints.txt", "pyproject.toml"),
}


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@checkout
def test_no_output_of_a_run_is_committed() -> None:
    """The top level holds what is written by hand."""
    assert {path.partition("/")[0] for path in git("ls-files").splitlines()} == TOP_LEVEL


@checkout
def test_a_checkout_is_the_same_on_windows() -> None:
    """No file is a link, and text keeps its line ends whatever git is set to."""
    assert "\n120000 " not in "\n" + git("ls-files", "--stage")
    for path in ("kuberay/rayservice.yaml", "serve_app/access/limits/counts.lua", "Makefile"):
        assert git("check-attr", "eol", "--", path).endswith(": lf\n")


@checkout
def test_every_file_name_is_valid_on_windows() -> None:
    """Names have no forbidden character, no reserved word, and differ by more than case."""
    forbidden = r'[<>:"|?*\\\x00-\x1f]|[. ](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)'
    paths = git("ls-files", "-z").split("\0")[:-1]
    assert [path for path in paths if re.search(forbidden, path, re.IGNORECASE)] == []
    assert len({path.lower() for path in paths}) == len(paths)
    assert max(map(len, paths)) < 180  # Windows allows 260 with the folder of the checkout
