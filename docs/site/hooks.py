"""MkDocs hooks: files of the repository that pages link to become part of the site.

A page links to `../kuberay/rayservice.yaml` or `../../CHANGELOG.md` as it would on a code host. The
site has no such files, so each is copied to `repository/<its path>`, and the links are rewritten.
Markdown files become pages, and their link targets are copied, too.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs"
COPIES = "repository"
_LINK = re.compile(r"(\]\()([^)\s#:]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside of docs/ that a page, or a file added before, links to."""
    waiting = [PAGES / file.src_uri for file in files.documentation_pages()]
    waiting += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]  # in the navigation
    done: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        if not path.is_relative_to(PAGES):
            uri = f"{COPIES}/{path.relative_to(ROOT)}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        if path.suffix == ".md":
            waiting += [target for target in _targets(path) if target.is_file()]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ at the copies; MkDocs then checks them as all others."""
    uri = page.file.src_uri
    source = ROOT / uri.removeprefix(f"{COPIES}/") if _is_copy(uri) else PAGES / uri

    def rewrite(match: re.Match[str]) -> str:
        target = _resolve(source, match[2])
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]  # MkDocs will report it
        return match[1] + os.path.relpath(_site_uri(target), Path(uri).parent)

    return _LINK.sub(rewrite, markdown)


def _targets(page: Path) -> Iterator[Path]:
    for _, link in _LINK.findall(page.read_text(encoding="utf-8")):
        target = _resolve(page, link)
        if target.is_relative_to(ROOT):
            yield target


def _resolve(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def _site_uri(target: Path) -> str:
    if target.is_relative_to(PAGES):
        return str(target.relative_to(PAGES))
    return f"{COPIES}/{target.relative_to(ROOT)}"


def _is_copy(uri: str) -> bool:
    return uri.startswith(f"{COPIES}/")
