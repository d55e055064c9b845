"""The page, in a real browser: what it shows for two nodes and for five hundred, and what it must not run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from builder.netboot import control
from builder.netboot.control import Control
from builder.netboot.orders import Node, State, Stranger
from builder.netboot.store import Store
from builder.run import run, which
from builder.spec.load import loads
from tests import sites

pytestmark = pytest.mark.tools
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@dataclass(frozen=True)
class Failing(Control):
    """A service that breaks after some answers."""

    answers: int
    asked: list[int] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        self.asked.append(1)
        if len(self.asked) > self.answers:
            raise OSError("broken")
        return super().state()


class Page(HTMLParser):
    """The rows of the page's two tables as lists of their cells' text, the rest of its text, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {"rows": [], "others": []}
        self.classes: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.title = ""
        self._table = self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open = tag
        known = dict(attrs)
        if tag == "tbody":
            self._table = known.get("id") or ""
        if tag == "tr" and self._table:
            self.tables[self._table].append([])
            if self._table == "rows":
                self.classes.append(known.get("class") or "")
        if tag == "td" and self._table:
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "tbody":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._open == "title":
            self.title += data
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += data
        else:
            self.text += data


@contextmanager
def page(
    folder: Path, nodes: dict[str, Node], strangers: dict[str, Stranger], answers: int = 1000
) -> Iterator[str]:
    """Serve these; yields the page's address. ``answers``: how often the state is told before that fails."""
    listed = "".join(f"  - {{name: {name}, match: {{serial: S{name}}}}}\n" for name in nodes)
    cluster = loads(f"name: lab\nnetwork: {{subnet: 10.0.0.0/16}}\nnodes:\n{listed}", source="x", base=folder)
    site = sites.site_of(cluster, folder, address="127.0.0.1", control_port=0)
    store = Store(folder / "state.json", list(nodes))
    store.change(lambda _state, _now: (State(nodes, strangers), None, True))
    with control.listening(Failing(site, store, "token", lambda _line: None, answers)) as (address, port):
        yield f"http://{address}:{port}/"


def shown(url: str, folder: Path) -> Page:
    """The page as it stands after a few seconds of the browser's own time."""
    browser = next((name for name in BROWSERS if which(name)), None)
    if browser is None:
        pytest.skip("no browser: apt-get install chromium-headless-shell")
    argv = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder}/b",
    ]
    argv += ["--virtual-time-budget=5000", "--no-proxy-server", "--dump-dom", url]
    return Page(run(argv, step="looking at the page").stdout)


def busy(**changes: object) -> Node:
    now = time.time()
    node = Node(order="w", phase="unpack", done=30, total=120, rate=5e7, line="node.squashfs")
    node = replace(node, began=now - 60, seen=now, moved=now)
    return replace(node, **changes)  # type: ignore[arg-type]


def test_two_nodes_failures_first_and_nothing_of_theirs_is_run(tmp_path: Path) -> None:
    nodes = {"node1": busy(line=EVIL), "node2": busy(failed="disk", line=EVIL), "node3": Node()}
    strangers = {"m": Stranger("52:54:00:00:00:09", EVIL, EVIL, "10.0.0.9", time.time() - 61)}
    with page(tmp_path, nodes, strangers) as url:
        found = shown(url, tmp_path)
    assert found.title.strip() == "(1!) lab"
    assert "img" not in found.tags
    assert [row[:3] for row in found.tables["rows"]] == [
        ["node2", "failed", "disk"],
        ["node1", "working", "unpack"],
        ["node3", "idle", ""],
    ]
    assert found.classes == ["failed", "working", "idle"]
    assert found.tables["rows"][1][3:6] == ["25 %", "47.7 MiB/s", EVIL]
    assert found.tables["rows"][0][5] == f"failed in disk: {EVIL}"
    assert found.tables["others"] == [["52:54:00:00:00:09", EVIL, EVIL, "10.0.0.9", "1 min"]]
    assert "1 failed, 1 working, 1 idle" in found.text


def test_slow_and_stuck_are_told_apart_among_five_hundred(tmp_path: Path) -> None:
    now = time.time()
    nodes = {f"n{number}": busy() for number in range(500)}
    nodes["n250"] = busy(rate=1e6)
    nodes["n300"] = busy(seen=now - 40, moved=now - 40)
    nodes["n400"] = busy(failed="verify", line="node.squashfs is damaged")
    with page(tmp_path, nodes, {}) as url:
        found = shown(url, tmp_path)
    rows = found.tables["rows"]
    assert len(rows) == 500
    assert [row[:2] for row in rows[:4]] == [
        ["n400", "failed"],
        ["n300", "stuck"],
        ["n250", "slow"],
        ["n0", "working"],
    ]
    assert "said nothing for" in rows[1][5] and "it moves, at 976.6 KiB/s" in rows[2][5]
    assert found.title.strip() == "(2!) lab"


def test_a_server_that_is_gone_is_said(tmp_path: Path) -> None:
    """What is shown then is old, and says so."""
    with page(tmp_path, {"node1": busy()}, {}, answers=1) as url:
        found = shown(url, tmp_path)
    assert found.tables["rows"][0][1] == "working"
    assert "No news for" in found.text and "What is shown is old." in found.text
