"""The control service over HTTP, as boot loaders, installers, people and strangers meet it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from builder.installer.beacon import Beacon
from builder.installer.model import InstallError
from builder.netboot import control
from builder.netboot.configs import Site
from builder.netboot.control import Control
from builder.netboot.store import Store
from builder.spec.model import Cluster
from tests.sites import site_of

TOKEN = "the token"
CARD1, CARD2, CARD9 = (f"52:54:00:77:00:0{n}" for n in (1, 2, 9))


@dataclass
class Served:
    url: str
    site: Site
    store: Store
    said: list[str]

    def get(self, path: str, **query: str) -> requests.Response:
        return requests.get(self.url + path, params=query, timeout=10)

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=headers, timeout=10)

    def order(self, *nodes: str) -> requests.Response:
        return self.post("/v1/order", {"nodes": list(nodes)}, Authorization=f"Bearer {TOKEN}")

    def word(self, node: str = "node1") -> str:
        return self.store.state.nodes[node].order

    def row(self, name: str = "node1") -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.get("/v1/state").json()["rows"]
        return next(row for row in rows if row["name"] == name)

    def beacon(self, word: str | None = None) -> Beacon:
        return Beacon(self.url, word or self.word(), sleep=lambda _seconds: None)


@pytest.fixture
def served(quickstart: Cluster, tmp_path: Path) -> Iterator[Served]:
    site = site_of(quickstart, tmp_path, address="127.0.0.1", control_port=0)
    said: list[str] = []
    store = Store(tmp_path / "state.json", [node.name for node in quickstart.nodes])
    with control.listening(Control(site, store, TOKEN, said.append)) as (address, port):
        yield Served(f"http://{address}:{port}", site, store, said)


@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_a_node_boots_its_disk_until_it_is_ordered_and_again_when_it_is_installed(
    served: Served, loader: str
) -> None:
    def boots() -> str:
        return served.get(f"/v1/boot/{loader}", mac=CARD1).text

    assert "boot=builder" not in boots() and "node1 is not to be installed" in boots()
    assert served.order("node1").ok
    assert f"builder.order={served.word()}" in boots()
    assert served.row()["phase"] == "loading"
    assert "boot=builder" not in served.get(f"/v1/boot/{loader}", mac=CARD2).text
    assert served.beacon().installed("node1", "node1 is installed")
    assert "boot=builder" not in boots()
    assert served.row()["health"] == "installed"


def test_a_boot_loader_may_ask_for_the_size_first(served: Served) -> None:
    served.order("node1")
    head = requests.head(f"{served.url}/v1/boot/grub?mac={CARD1}", timeout=10)
    text = served.get("/v1/boot/grub", mac=CARD1).text
    assert (head.status_code, head.text, head.headers["Content-Length"]) == (200, "", str(len(text)))


def test_a_machine_that_is_no_node_boots_its_disk_and_is_shown(served: Served) -> None:
    served.order("node1", "node2")
    text = served.get("/v1/boot/ipxe", mac=CARD9, uuid="a-uuid", serial="<b>S</b>").text
    assert "boot=builder" not in text
    (one,) = served.get("/v1/state").json()["strangers"]
    assert (one["mac"], one["uuid"], one["serial"], one["address"]) == (CARD9, "a-uuid", "<b>S</b>", "127.0.0.1")
    for query in ({}, {"mac": "x"}, {"mac": f"{CARD1} init=/bin/sh"}, {"mac": "\n#!ipxe"}):
        text = served.get("/v1/boot/ipxe", **query).text
        assert "boot=builder" not in text and "init=" not in text and text.count("#!ipxe") == 1


def test_the_first_write_is_asked_for(served: Served) -> None:
    served.order("node1")
    installer = served.beacon()
    installer.ask_to_write("node1", "/dev/vda")
    assert served.row()["line"] == "about to write /dev/vda"
    with pytest.raises(InstallError, match="the order is for node1, and the machine is node2"):
        installer.ask_to_write("node2", "/dev/vda")
    served.post("/v1/take-back", {"nodes": ["node1"]}, Authorization=f"Bearer {TOKEN}")
    with pytest.raises(InstallError, match="takes back its order"):
        installer.ask_to_write("node1", "/dev/vda")


def test_a_server_that_is_gone_lets_nothing_be_written() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        installer = Beacon(f"http://127.0.0.1:{closed.getsockname()[1]}", "ab" * 8, sleep=lambda _seconds: None)
        with pytest.raises(InstallError, match="does not answer, so nothing is written"):
            installer.ask_to_write("node1", "/dev/vda")
        assert not installer.installed("node1", "is installed")


def test_the_installer_s_news_arrive_from_its_thread(served: Served) -> None:
    served.order("node1")
    installer = served.beacon()
    installer.phase("unpack", "node.squashfs")
    installer.progress("unpack", 30, 120)
    installer.start()
    installer.stop()
    row = served.row()
    assert (row["phase"], row["percent"], row["line"], row["health"]) == ("unpack", 25, "node.squashfs", "working")
    installer.failed("unpack", "the disk is full", "/dev/vda")
    row = served.row()
    assert row["health"] == "failed" and "/dev/vda was already being written" in row["note"]
    assert any("node1: failed in unpack: the disk is full" in line for line in served.said)


def test_what_changes_something_needs_the_token(served: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}, {"Authorization": "Bearer "}):
        for path in ("/v1/order", "/v1/take-back"):
            assert served.post(path, {"nodes": ["node1"]}, **headers).status_code == 401
    assert served.word() == ""


@pytest.mark.parametrize("body", [{}, {"nodes": []}, {"nodes": "node1"}, {"nodes": ["nodeX"]}, {"nodes": [1]}, []])
def test_a_call_that_names_no_node(served: Served, body: Any) -> None:
    assert served.post("/v1/order", body, Authorization=f"Bearer {TOKEN}").status_code == 400
    assert served.word("node1") == served.word("node2") == ""


def test_bodies_are_bounded_and_understood_or_refused(served: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for data, status in (
        (b"x" * (control.BODY + 1), 413),
        (b"{", 400),
        (b"[" * 9000, 400),
        (b"\xff", 400),
        (b"7", 400),
    ):
        assert requests.post(served.url + "/v1/report", data, headers=headers, timeout=10).status_code == status
    reply = requests.post(served.url + "/v1/report", iter([b"{}"]), timeout=10)  # chunked: of no told length
    assert reply.status_code == 413


def test_nothing_else_is_there(served: Served) -> None:
    for path in (
        "/x",
        "/v1",
        "/v1/boot/pxelinux",
        "/../etc/passwd",
        "/page.js/../../token",
        "/%2e%2e/token",
        "/token",
    ):
        assert served.get(path).status_code == 404
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as raw:
            raw.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert b" 404 " in raw.recv(100)


def test_a_state_that_cannot_be_kept_is_no_answer(served: Served, tmp_path: Path) -> None:
    served.order("node1")
    word = served.word()
    served.store.path = tmp_path / "missing/state.json"
    reply = served.post("/v1/report", {"order": word, "phase": "installed"})
    assert reply.status_code == 503
    assert served.word() == word  # and the installer asks again


def test_the_page_runs_nothing_but_its_own_script(served: Served) -> None:
    reply = served.get("/")
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "innerHTML" not in served.get("/page.js").text
    assert served.get("/page.css").headers["Content-Type"].startswith("text/css")


def test_the_state_holds_neither_order_nor_token(served: Served) -> None:
    served.order("node1")
    text = json.dumps(served.get("/v1/state").json())
    assert served.word() not in text and TOKEN not in text
