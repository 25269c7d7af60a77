"""The pages as text: their size, links, anchors and names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from serve_app.setting_names import nested_model
from serve_app.settings import Settings
from tests.support import pages
from tests.support.pages import PAGES, ROOT

each_page = pytest.mark.parametrize("page", PAGES, ids=pages.name)
WIDEST_CELL = 120
# The index leads to the questions, and contributing.md to the guide.
QUESTIONED = [p for p in PAGES[3:] if p.name not in ("index.md", "contributing.md")]


def test_the_readme_is_short() -> None:
    """A newcomer reads it to the end."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


@each_page
def test_table_cells_are_short(page: Path) -> None:
    """No cell is wider than a line."""
    assert [cell for cell in pages.table_cells(page) if len(cell) > WIDEST_CELL] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file, and every anchor a heading in it."""
    broken = [link for link in pages.links(page) if not _is_there(page, link)]
    assert broken == []


def _is_there(page: Path, link: str) -> bool:
    if re.match(r"https?:", link):
        return True
    path, _, anchor = link.partition("#")
    target = Path(os.path.normpath(page.parent / path)) if path else page
    return target.is_file() and (not anchor or anchor in pages.anchors(target))


@pytest.mark.parametrize("page", QUESTIONED, ids=pages.name)
def test_a_page_names_its_question(page: Path) -> None:
    """A reader knows from the first line which question the page answers."""
    assert re.match(r"# .+\n\n\*[A-Z][^*]+\?\*", pages.text(page))


def test_every_page_is_in_the_index() -> None:
    """A reader of the index, and of the list of examples, finds each page."""
    index, examples = (ROOT / "docs" / name for name in ("index.md", "examples/README.md"))
    linked = {
        os.path.normpath(page.parent / link.partition("#")[0])
        for page in (index, examples)
        for link in pages.links(page)
    }
    others = {str(page) for page in PAGES} - {str(index), str(ROOT / "docs" / "contributing.md")}
    assert others - linked == set()


@each_page
def test_variables_are_settings(page: Path) -> None:
    """Every SERVE_APP_… that a page names exists."""
    named = re.findall(r"\bSERVE_APP_([A-Z0-9_]*[A-Z0-9])\b", pages.text(page))
    assert [name for name in named if not _is_setting(name)] == []


def _is_setting(variable: str) -> bool:
    if variable.startswith("TEST_"):
        return True
    model: type[BaseModel] | None = Settings
    for part in variable.lower().split("__"):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        model = nested_model(fields[part])
    return True


@each_page
def test_named_files_exist(page: Path) -> None:
    """A path of the repository in a sentence is there; the changelog names what was."""
    if page.name == "CHANGELOG.md":
        return
    paths = [code for code in pages.inline(page) if _PATH.fullmatch(code) and "NAME" not in code]
    assert [path for path in paths if not (ROOT / path).exists()] == []


_PATH = re.compile(r"(serve_app|kuberay|locustfiles|k6|tests|docs)/[\w./-]*")


def test_make_targets_exist() -> None:
    """Every `make TARGET` of an example or a sentence is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [code for page in PAGES for code in pages.inline(page)]
    texts += [" ".join(words) for block in pages.examples("sh") for words in pages.commands(block)]
    named = {match[1] for text in texts if (match := re.match(r"make ([a-z][a-z-]*)", text))}
    assert named - targets == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning would be an error."""
    pytest.importorskip("material", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures are its own: it works without a network."""
    tag = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    pages_with_tags = {
        str(page.relative_to(site)): tags
        for page in site.rglob("*.html")
        if (tags := tag.findall(page.read_text()))
    }
    assert pages_with_tags == {}
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?https?:", styles)


def test_the_site_can_be_searched(site: Path) -> None:
    """The index has the pages and their sections."""
    index = (site / "search" / "search_index.json").read_text()
    assert '"location":"kubernetes/runbook.html#rotate-api-keys"' in index
