"""Ubuntu's installer over the network: the tree's files, the seed, the memory, and where the models come from."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder import cpio, render, resources
from builder.errors import BuilderError, Exit
from builder.installer import carried, commands, facts, net, payload, pick, picked
from builder.installer import live as halves
from builder.installer.beacon import Beacon
from builder.installer.listener import Nobody
from builder.installer.model import Child, Disk, File, InstallError, Manifest, Model
from builder.media.isoimage import Extent, IsoImage, Place
from builder.media.payload import Payload
from builder.netboot import live, tree, view
from builder.netboot.orders import Node, State
from builder.spec.load import loads
from tests.unit.test_installer_pick import Live as Machine
from tests.unit.test_netboot_control import Served, served  # noqa: F401

SCRIPT = resources.root() / "overlays/netlive/rootfs/scripts/builder-memory"
CONF = resources.root() / "overlays/netlive/rootfs/conf/conf.d/builder.conf"
ORDER = "0123456789abcdef" * 2


def image(*names: str) -> IsoImage:
    return IsoImage(Path("u.iso"), "Ubuntu", 0, {name: Place((Extent(0, 0),)) for name in names})


def test_the_newer_kernel_is_taken_where_it_is_wanted_and_there() -> None:
    both = ("/casper/vmlinuz", "/casper/initrd", "/casper/hwe-vmlinuz", "/casper/hwe-initrd")
    assert live.boot_files(image(*both), hwe=True) == both[2:]
    assert live.boot_files(image(*both), hwe=False) == both[:2]
    assert live.boot_files(image(*both[:3]), hwe=True) == both[:2]
    with pytest.raises(BuilderError, match="has no /casper/vmlinuz with its initrd") as caught:
        live.boot_files(image("/casper/vmlinuz"), hwe=True)
    assert caught.value.code == Exit.MEDIUM


def test_ubuntu_s_initramfs_comes_first_and_whole() -> None:
    for size in range(4):
        made = live.initramfs(b"u" * (8 + size), 1)
        assert made.startswith(b"u" * (8 + size)) and len(made) % 4 == 0
        ours = made[-(-(8 + size) // 4) * 4 :]
        assert ours == cpio.archive(render.overlay("netlive", {}), 1) and b"scripts/builder-memory" in ours


def test_the_iso_has_everything_but_the_models() -> None:
    files = {"layers/a": b"a", "models/b": b"b", "seeds/n/user-data": b"c"}
    manifest = {"models": [{"name": "b.bin", "path": "models/b"}]}
    made = live.without_models(Payload(manifest, files))
    assert set(made.files) == {"layers/a", "seeds/n/user-data"}
    assert made.sha256 == Payload(manifest, files).sha256


def test_a_passphrase_is_not_sent_over_the_network(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse battery staple\n")
    text = """
name: lab
distribution: {name: ubuntu, release: "24.04"}
network: {subnet: 10.0.0.0/24}
access: {ssh_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN6fuYmqtAyVGvZ1h1LzyDrhoFkEGFkHzBPzIhJoB1gp me"]}
storage: {disk: {largest: true}, luks: {passphrase_file: secret}}
media: {installer: subiquity}
nodes:
  - {name: n, match: {serial: S}}
"""
    with pytest.raises(BuilderError, match="passphrase") as caught:
        live.require(loads(text, source="lab.yaml", base=tmp_path))
    assert caught.value.code == Exit.SPEC and "make iso" in caught.value.hint
    open_disk = text.replace(", luks: {passphrase_file: secret}", "")
    live.require(loads(open_disk, source="lab.yaml", base=tmp_path))


# The memory, by a real shell


@contextmanager
def web(handler: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An initramfs on a machine with a screen and a serial port, 4000 MiB of memory, and a network."""
    for folder in ("proc", "sys/class/tty/console", "dev", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/class/tty/console/active").write_text("tty0 ttyS0\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:        4096000 kB\nMemFree:         9999999 kB\n")
    wget = tmp_path / "bin/wget"
    wget.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n')
    wget.chmod(0o755)
    return tmp_path


def check(root: Path, need: str) -> tuple[int, str]:
    """The exit status, and what the serial port shows."""
    told = f"builder.server=http://10.77.0.1:8481 builder.order={ORDER}"
    (root / "proc/cmdline").write_text(f"ip=dhcp autoinstall ds=nocloud;s=x {need} {told}\n")
    path = f"{root}/bin:/usr/bin:/bin"
    done = subprocess.run(["sh", SCRIPT, root, "0"], env={"PATH": path}, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")
    shown = (root / "dev/ttyS0").read_text()
    assert (root / "dev/tty1").read_text() == shown and not (root / "dev/tty0").exists()
    return done.returncode, shown


def asked(root: Path) -> str:
    """What the script had wget ask for, in the background."""
    commands.wait_for((root / "asked").exists, 30.0, every=0.02)
    return (root / "asked").read_text().split()[-1]


def test_enough_memory_is_said_and_the_boot_goes_on(root: Path) -> None:
    status, shown = check(root, "builder.memory=4000")
    assert (status, shown) == (0, "builder: memory: 4000 MiB, and 4000 MiB are needed\n")
    assert asked(root) == f"http://10.77.0.1:8481/v1/memory?order={ORDER}&have=4000&need=4000"


def test_too_little_memory_is_said_with_both_numbers_and_the_mend(root: Path) -> None:
    status, shown = check(root, "builder.memory=4001")
    assert status == 1
    assert "builder-failed memory: this machine has 4000 MiB of memory, and 4001 MiB are needed\n" in shown
    assert "From a stick" in shown and "Nothing was written to any disk." in shown and "powers off" in shown
    assert asked(root).endswith("&have=4000&need=4001")


def test_casper_runs_ours_first_and_its_own_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "casper-premount"
    text = CONF.read_text().replace("/scripts/casper-premount", str(folder))
    for own in ('/scripts/casper-premount/10driver_updates "$@"\n', None):
        if own:
            folder.mkdir()
            (folder / "ORDER").write_text(own)
        subprocess.run(["sh", "-e", "-c", text], check=True, timeout=60)
        assert (folder / "ORDER").read_text() == '/scripts/builder-memory "$@"\n' + (own or "")
        assert [path.name for path in folder.iterdir()] == ["ORDER"]
        (folder / "ORDER").unlink()
        folder.rmdir()


# The control service


@pytest.fixture
def ubuntu(served: Served) -> Served:  # noqa: F811
    """The same cluster, served with Ubuntu's installer."""
    object.__setattr__(served.site, "tree", replace(served.site.tree, live=live.Live("quickstart.iso", 3 << 30)))
    served.site.tree.seed.mkdir(parents=True)
    for name in tree.SEED:
        (served.site.tree.seed / name).write_text(f"{name} of the live system\n")
    return served


def test_the_seed_is_for_a_machine_that_is_ordered_and_while_it_is(ubuntu: Served) -> None:
    assert ubuntu.get(f"/v1/seed/{ORDER}/user-data").status_code == 404
    ubuntu.order("node1")
    word = ubuntu.word()
    script = ubuntu.get("/v1/boot/grub", mac="52:54:00:77:00:01").text
    assert f"/v1/seed/{word}/ " in script and "iso-url=" in script and "boot=builder" not in script
    assert ubuntu.get(f"/v1/seed/{word}/user-data").text == "user-data of the live system\n"
    assert ubuntu.get(f"/v1/seed/{word}/meta-data").ok
    # What NoCloud asks for besides, and what nobody should.
    for name in ("vendor-data", "network-config", "tree.json", "..%2ftree.json", "../tree.json", ""):
        assert ubuntu.get(f"/v1/seed/{word}/{name}").status_code == 404, name
    assert ubuntu.get(f"/v1/seed/{ORDER}/user-data").status_code == 404
    ubuntu.beacon().installed("node1", "node1 is installed")
    assert ubuntu.get(f"/v1/seed/{word}/user-data").status_code == 404


def test_the_page_shows_whether_the_memory_is_enough(ubuntu: Served) -> None:
    ubuntu.order("node1")
    word = ubuntu.word()
    assert ubuntu.get("/v1/memory", order=word, have="9000", need="7000").json()["go"] is True
    assert (ubuntu.row()["health"], ubuntu.row()["phase"]) == ("working", "iso")
    ubuntu.get("/v1/memory", order=word, have="2000", need="7000")
    row = ubuntu.row()
    assert (row["health"], row["phase"]) == ("failed", "memory")
    assert "2000 MiB of memory, and 7000 MiB are needed" in row["note"]
    assert ubuntu.get("/v1/memory", order=ORDER, have="9000", need="7000").json()["go"] is False
    for wrong in ({}, {"order": word, "have": "x", "need": "1"}, {"order": word, "have": "9" * 5000, "need": "1"}):
        assert ubuntu.get("/v1/memory", **wrong).status_code == 400


def test_the_seed_of_the_direct_installer_s_tree_is_not_there(served: Served) -> None:  # noqa: F811
    served.order("node1")
    assert served.get(f"/v1/seed/{served.word()}/user-data").status_code == 404


@pytest.mark.parametrize("phase", ["iso", "ubuntu"])
def test_a_node_may_be_silent_while_nothing_of_ours_runs(phase: str) -> None:
    node = Node(order=ORDER, phase=phase, seen=1000.0, moved=1000.0, began=1000.0)
    assert view.rows(State({"n": node}), 1000.0 + 600)[0].health == "working"
    assert view.rows(State({"n": node}), 1000.0 + 1801)[0].health == "stuck"


# The picker


class Listener(Nobody):
    order = ORDER

    def __init__(self, go: bool = True) -> None:
        self.go = go
        self.heard: list[str] = []

    def ask_to_write(self, node: str, disk: str) -> None:
        self.heard.append(f"ask {node} {disk}")
        if not self.go:
            raise InstallError("the server takes back its order to install")

    def installed(self, node: str, line: str) -> bool:
        self.heard.append(f"installed {node}")
        return True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_the_server_is_asked_before_the_document_is_written(machine: Machine) -> None:
    listener = Listener()
    assert pick.pick(machine.console, "", listener) is not None
    assert listener.heard == ["ask node1 /dev/vda"] and machine.document.exists()


def test_an_order_that_was_taken_back_picks_nothing(machine: Machine) -> None:
    with pytest.raises(InstallError, match="takes back"):
        pick.pick(machine.console, "", Listener(go=False))
    assert not machine.document.exists() and not machine.picked.exists()


def test_an_order_that_was_carried_out_picks_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "out", lambda _console, listener, _disk: listener.order == ORDER)
    listener = Listener()
    assert pick.pick(machine.console, "", listener) is None
    assert listener.heard == ["installed node1"] and not machine.document.exists()
    assert pick.pick(machine.console, "", Nobody()) is not None


def test_a_disk_without_our_esp_carried_out_nothing(machine: Machine) -> None:
    other = Disk("vda", "/dev/vda", children=(Child("vda1", "/dev/vda1", partlabel="esp"),))
    assert carried.out(machine.console, Listener(), other) is False


# The models


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None: ...


def test_models_come_from_the_server_and_all_else_from_the_iso(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ISO has no models, and the server, here, nothing else."""
    data = {"models/m": b"weights" * 1000, "layers/l": b"layer"}
    files = tuple(File(path, len(data[path]), hashlib.sha256(data[path]).hexdigest()) for path in data)
    (tmp_path / "srv/builder/models").mkdir(parents=True)
    (tmp_path / "srv/builder/models/m").write_bytes(data["models/m"])
    (machine.root / "layers/l").write_bytes(data["layers/l"])
    found = payload.load(machine.root, payload.argued_digest())
    manifest: Manifest = replace(found.manifest, models=(Model("m.bin", "models/m"),))

    def handler(*args: Any) -> BaseHTTPRequestHandler:
        return Quiet(*args, directory=str(tmp_path / "srv"))

    with web(handler) as url:
        monkeypatch.setattr(net, "address", lambda: f"{url}/builder")
        source = halves.source(machine.console, replace(found, manifest=manifest))
        source.prove(manifest, files, lambda _done, _total: None)
        for file in files:
            source.copy(file, tmp_path / "copied")
            assert (tmp_path / "copied").read_bytes() == data[file.path]
            (tmp_path / "copied").unlink()
        with pytest.raises(InstallError, match="models/m is damaged: it has 7000 bytes, the manifest says 6999"):
            source.prove(manifest, (replace(files[0], size=6999), files[1]), lambda _done, _total: None)
        with pytest.raises(InstallError, match="layers/l is damaged"):
            source.prove(manifest, (files[0], replace(files[1], sha256="0" * 64)), lambda _done, _total: None)


def test_from_a_medium_there_is_no_server(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "address", lambda: "")
    found = payload.load(machine.root, payload.argued_digest())
    assert type(halves.source(machine.console, found)).__name__ == "Medium"


def test_a_failure_is_told_once(ubuntu: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program that knows why; else by the one that subiquity runs when it fails itself."""
    ubuntu.order("node1")
    (tmp_path / "picked").write_text(json.dumps({"node": "node1", "disk": "/dev/vda", "sector": 512}))
    monkeypatch.setattr(halves, "TOLD", tmp_path / "told")
    monkeypatch.setattr(picked, "PATH", tmp_path / "picked")
    monkeypatch.setattr(halves, "active_ttys", tuple)
    monkeypatch.setattr(halves, "Console", lambda _ttys: None)
    monkeypatch.setattr(net, "listener", lambda _console: Beacon(ubuntu.url, ubuntu.word()))
    halves.told()
    assert halves.main() == 0 and ubuntu.row()["health"] == "waiting"
    halves.TOLD.unlink()
    assert halves.main() == 0
    assert ubuntu.row()["health"] == "failed" and "/dev/vda was already being written" in ubuntu.row()["note"]


def test_the_order_comes_from_the_kernel_s_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = tmp_path / "cmdline"
    line.write_text("autoinstall builder.payload=http://10.77.0.1/builder ---\n")
    argument = facts.kernel_argument
    monkeypatch.setattr(facts, "kernel_argument", lambda name: argument(name, line))
    with pytest.raises(InstallError, match=r"no builder\.server="):
        net.listener(None)  # type: ignore[arg-type]
