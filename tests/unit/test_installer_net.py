"""What a boot over the network hands to the installer, and what it does not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.installer import facts, net
from builder.installer.beacon import Beacon
from builder.installer.console import Console
from builder.installer.listener import Nobody
from builder.installer.model import InstallError

ORDER = "0123456789abcdef" * 2
GOOD = {
    "builder.payload": "http://10.77.0.1:8480/builder",
    "builder.server": "http://127.0.0.1:9",
    "builder.order": ORDER,
}


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console((), tmp_path / "log")


def told(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str]) -> None:
    monkeypatch.setattr(facts, "kernel_argument", lambda name: arguments.get(name, ""))


def test_a_medium_in_a_hand_tells_nobody(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    told(monkeypatch, {})
    found = net.listener(console)
    assert type(found) is Nobody and found.order == "" and net.address() == ""
    found.ask_to_write("node1", "/dev/vda")
    assert found.installed("node1", "is installed")


def test_an_order_is_taken_along(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    told(monkeypatch, GOOD)
    found = net.listener(console)
    assert isinstance(found, Beacon) and found.order == ORDER
    console.step("unpack", "node.squashfs")
    console.progress(3, 7)
    assert found._news == {"phase": "unpack", "line": "node.squashfs", "done": 3, "total": 7}
    found.stop()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"builder.server": ""}, "has builder.payload= and no builder.server="),
        ({"builder.order": ""}, "is no order: ''"),
        ({"builder.order": "../../etc/passwd"}, "is no order"),
        ({"builder.order": ORDER.upper()}, "is no order"),
        ({"builder.order": ORDER[:15]}, "is no order"),
        ({"builder.server": "ftp://10.0.0.1"}, "only http"),
    ],
)
def test_a_command_line_that_did_not_arrive_whole(
    monkeypatch: pytest.MonkeyPatch, console: Console, change: dict[str, str], why: str
) -> None:
    told(monkeypatch, {**GOOD, **change})
    with pytest.raises(InstallError, match=why):
        net.listener(console)
