"""The report: one folder that says what happened to those who were not there."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from serve_app.capacity.experiment import report
from serve_app.capacity.experiment.document import Heading, Paragraph, Table, html_page, markdown
from serve_app.capacity.experiment.plots import Picture, main_picture
from tests.capacity.experiment import recorded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report.write(recorded.recording(folder), "python -m serve_app.capacity experiment")
    return folder


class Tags(HTMLParser):
    """Which tags there are, and what they point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [v for name, v in attrs if name in ("src", "href", "xlink:href") and v]


def test_html_needs_nothing_beside_it(folder: Path) -> None:
    """Pictures are within, nothing is fetched, no script runs."""
    tags = Tags((folder / "report.html").read_text())
    assert tags.names.count("svg") == 3
    assert all(link.startswith("#") for link in tags.links)
    assert not {"script", "img", "link"} & set(tags.names)


def test_markdown_shows_the_pictures_beside_it(folder: Path) -> None:
    """Each is there, as PNG."""
    names = re.findall(r"\]\((.+?)\)", (folder / "report.md").read_text())
    assert names == ["scaling.png", "latency.png", "pressure.png"]
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_the_report_states_what_the_experiment_is_for(folder: Path) -> None:
    """Times to the replica and to the SLO, losses, replica-seconds used and least, flaps, cost."""
    text = (folder / "report.md").read_text()
    for phrase in (
        "**130** requests",
        "**0** lost, 0 of them truncated",
        "with 0 flaps",
        "| 2 | 3.0 s | 9.0 s | 6.0 s |",
        "met again for good after",
        "**98 replica-seconds**",
        "least that would have met the SLO",
        "cost at 2/h",
        "python -m serve_app.capacity experiment",
    ):
        assert phrase in text


def test_what_must_not_be_trusted_says_so_first(folder: Path) -> None:
    """An interrupted or an invalid run, before any figure."""
    reason = "the generator was late"
    findings = recorded.recording(folder, True, (reason,)).findings
    pictures = [Picture(name, "", b"", b"") for name in ("scaling", "pressure", "latency")]
    text = markdown(list(report.one(findings, recorded.SCENARIO, "", pictures)))
    assert "**Interrupted**" in text
    assert text.index(reason) < text.index("requests by")


def test_equal_data_make_equal_pictures(folder: Path) -> None:
    """So that a report that is made again differs only where its data do."""
    again = main_picture(recorded.recording(folder).data)
    assert again.svg == (folder / "scaling.svg").read_bytes()


def test_text_is_escaped_in_html() -> None:
    """And emphasis survives."""
    page = html_page("a < b", [Paragraph("**x < y** in `f<T>`"), Heading("A & B")])
    assert "<b>x &lt; y</b> in <code>f&lt;T&gt;</code>" in page
    assert "<h2>A &amp; B</h2>" in page
    assert "<title>a &lt; b</title>" in page


def test_a_cell_can_hold_a_bar_in_markdown() -> None:
    """Without ending there."""
    assert "| a\\|b |" in markdown([Table(["x"], [["a|b"]])])
