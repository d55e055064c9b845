"""What a medium does, from what was read of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder import inspect, lock, plan
from builder.errors import BuilderError, Exit
from builder.inspect import Content, Inspection, against, installed, show
from builder.inspect.unattended import OURS
from builder.lock import Lock
from builder.media.baseiso import LockedIso
from builder.media.payload import Payload
from builder.spec.load import loads
from tests.conftest import SHA
from tests.isotrees import CATALOGUE, INFO, LIVE_SERVER, MENU, with_arguments

HASH = "$6$saltsalt$Y.hGr40ZvsF1gmx7H/AZZHI7/nzsKyHSXZjpQF9Z6jkG6YNlPWuQntRB7tvcEwveKo6oz/eLfx9rB7wkSJUWq1"
FINGERPRINT = "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"  # by ssh-keygen -l
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop"
SEED = "autoinstall ds=nocloud\\;s=/cdrom/nocloud/"
USER = "(/cdrom/nocloud/user-data)"
ANY = "installs any machine, with"


def auto(more: str = "version: 1") -> str:
    return f"#cloud-config\nautoinstall: {{{more}}}\n"


SIMPLE = auto()


def content(files: Mapping[str, str | bytes], sizes: Mapping[str, int] | None = None, pin: str = "") -> Content:
    """A medium with these small files; ``sizes``: what large ones it has, or another size than a small one's."""
    texts = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    found = {name: len(text) for name, text in texts.items()} | dict(sizes or {})
    return Content("x.iso", "LAB", 1 << 30, found, texts, pin or None)


def stock(**files: str) -> dict[str, str]:
    """Ubuntu's own ISO, with some more files: ``menu``, ``user``, ``meta``, ``auto``."""
    names = {
        "menu": "/boot/grub/grub.cfg",
        "user": "/nocloud/user-data",
        "meta": "/nocloud/meta-data",
        "auto": "/autoinstall.yaml",
    }
    return {**LIVE_SERVER, **{names[key]: text for key, text in files.items()}}


def seeded(user: str, arguments: str = SEED) -> dict[str, str]:
    return stock(menu=with_arguments(arguments), user=user, meta="")


@pytest.mark.parametrize(
    ("files", "does", "asks"),
    [
        (stock(), "asks a person; no autoinstall", True),
        (
            seeded(SIMPLE),
            f"asks nobody: {ANY} LVM on its largest disk {USER}",
            False,
        ),
        (
            seeded(SIMPLE, SEED.removeprefix("autoinstall ")),
            f"asks for a yes, and then {ANY} LVM on its largest disk {USER}",
            True,
        ),
        (
            seeded(auto("version: 1, storage: {layout: {name: direct}}")),
            f"asks nobody: {ANY} plain partitions on its largest disk {USER}",
            False,
        ),
        (
            seeded(auto("version: 1, storage: {layout: {name: lvm, match: {ssd: true}}}")),
            f"asks nobody: {ANY} LVM on a disk like {{ssd: true}} {USER}",
            False,
        ),
        (
            seeded(auto("version: 1, storage: {config: []}")),
            f"asks nobody: {ANY} partitions of its own {USER}",
            False,
        ),
        (
            seeded(auto("version: 1, interactive-sections: [network, storage]")),
            f"asks a person about network, storage {USER}",
            True,
        ),
        (
            seeded(auto("version: 1, early-commands: [[python3, -m, installer.pick]]")),
            f"asks nobody: {OURS}",
            False,
        ),
        (seeded("#cloud-config\nusers: []\n"), "asks a person; no autoinstall", True),
        (
            stock(menu=with_arguments("autoinstall"), auto="version: 1\n"),
            f"asks nobody: {ANY} LVM on its largest disk (/cdrom/autoinstall.yaml)",
            False,
        ),
        (
            stock(menu=with_arguments("autoinstall"), auto="autoinstall: {version: 1}\n"),
            f"asks nobody: {ANY} LVM on its largest disk (/cdrom/autoinstall.yaml)",
            False,
        ),
        (
            stock(menu=with_arguments(SEED), user=SIMPLE),
            "asks a person; the seed of its kernel line is not there: /cdrom/nocloud/",
            True,
        ),
        (
            stock(menu=with_arguments("autoinstall ds=nocloud\\;s=http://192.0.2.1/x/")),
            "does what http://192.0.2.1/x/ says, which is not on the medium",
            None,
        ),
        (
            stock(menu=with_arguments("autoinstall subiquity.autoinstallpath=/cdrom/x.yaml"))
            | {"/x.yaml": "version: 1\n"},
            f"asks nobody: {ANY} LVM on its largest disk (/cdrom/x.yaml)",
            False,
        ),
        (
            stock(menu='menuentry "x" {\n linux /live/vmlinuz boot=live\n}\n'),
            "cannot be told: it starts /live/vmlinuz, which is no installer that we know",
            None,
        ),
        (stock(menu=""), "cannot be told: it has no GRUB menu that starts a kernel", None),
        ({}, "cannot be told: it has no GRUB menu that starts a kernel", None),
    ],
)  # fmt: skip
def test_what_it_does(files: dict[str, str], does: str, asks: bool | None) -> None:
    found = inspect.inspect(content(files))
    assert (found.does, found.asks) == (does, asks)
    assert f"does      {does}" in show.table(found)


def test_the_seed_s_document_comes_before_the_one_at_the_root() -> None:
    files = {**seeded(SIMPLE), "/autoinstall.yaml": "version: 1\ninteractive-sections: ['*']\n"}
    assert inspect.inspect(content(files)).asks is False
    files = {**seeded("#cloud-config\n"), "/autoinstall.yaml": "version: 1\ninteractive-sections: ['*']\n"}
    assert inspect.inspect(content(files)).does == "asks a person about everything (/cdrom/autoinstall.yaml)"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (seeded("autoinstall: {version: 1}\n"), "does not begin with #cloud-config"),
        (seeded("#cloud-config\n{"), "/cdrom/nocloud/user-data is not YAML"),
        (seeded("#cloud-config\nautoinstall: 7\n"), "an autoinstall that is not a mapping"),
        (seeded(auto("")), "has no version: 1"),
        (seeded(auto("version: 2")), "has no version: 1"),
        (stock(menu=with_arguments("autoinstall"), auto="[]\n"), "/cdrom/autoinstall.yaml is not a mapping"),
        (stock(menu=with_arguments(SEED), meta=""), "the seed /cdrom/nocloud/ lacks user-data"),
        (stock(menu=with_arguments(SEED), user=SIMPLE), "the seed /cdrom/nocloud/ lacks meta-data"),
        (
            stock(menu=with_arguments("autoinstall ds=nocloud;s=/cdrom/nocloud/"), user=SIMPLE, meta=""),
            "Try or Install Ubuntu Server: GRUB ends its kernel line at a ; and drops 's=/cdrom/nocloud/ ---'; "
            "write \\;",
        ),
        (
            {key: text for key, text in stock().items() if "ubuntu-server.squashfs" not in key},
            "the source ubuntu-server is not there: /casper/ubuntu-server-minimal.ubuntu-server.squashfs",
        ),
    ],
)
def test_what_can_never_work(files: dict[str, str], problem: str) -> None:
    found = inspect.inspect(content(files))
    assert any(problem in text for text in found.problems), found.problems
    assert "problems" in show.table(found)


def test_ubuntu_s_own_iso_has_no_problem() -> None:
    found = inspect.inspect(content(stock()))
    assert found.problems == ()
    assert (found.system, found.cluster, found.plan, found.nodes) == (INFO.strip(), None, None, ())
    assert [source.id for source in found.sources] == ["ubuntu-server-minimal", "ubuntu-server"]
    assert found.layers[0].name == "ubuntu-server-minimal.squashfs"


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    found = inspect.inspect(content(stock() | {"/.disk/info": "Ubuntu-Server 24.04 \x1b[2J\n"}))
    assert "\x1b" not in show.table(found)


# Media of ours.


def direct(todo: plan.Plan, **changes: Any) -> Content:
    """The direct medium of a plan, its layers a few bytes long; ``changes`` are made to the manifest."""
    now = against.wanted(todo)
    layers = [{"path": f"layers/{layer.file}", "size": 5, "sha256": SHA} for layer in todo.layers]
    manifest = {**now.manifest, "files": [*now.manifest["files"], *layers], **changes}
    text = Payload(manifest, {}).manifest_bytes
    menu = "menuentry 'Install' {\n linux /boot/vmlinuz boot=builder builder.mode=install\n}\n"
    files: dict[str, str | bytes] = {"/builder/manifest.json": text, "/boot/grub/grub.cfg": menu}
    small = {f"/builder/{path}": file for path, file in now.files.items() if isinstance(file, bytes)}
    sizes = {f"/builder/{entry['path']}": entry["size"] for entry in manifest["files"]}
    pin = hashlib.sha256(text).hexdigest()
    return content({**files, "/boot/initramfs.img": "x", **small}, sizes, pin)


def test_a_direct_medium_says_who_is_installed(planned: plan.Plan) -> None:
    found = inspect.inspect(direct(planned))
    assert found.problems == ()
    assert (found.does, found.asks) == (f"asks nobody: {OURS}", False)
    assert (found.cluster, found.plan, found.packages) == ("quickstart", planned.id, 2)
    assert [(node.name, node.address) for node in found.nodes] == [
        ("node1", "10.77.0.11"),
        ("node2", "10.77.0.12"),
    ]
    assert [(layer.name, layer.size) for layer in found.layers] == [
        ("node.squashfs", 5),
        ("node.site.squashfs", 5),
    ]
    assert [(model.name, model.size) for model in found.models] == [("quickstart.txt", 3000)]
    shown = show.table(found)
    row = "  node1            10.77.0.11       mac=52:54:00:77:00:01; the largest disk of 4.0 GiB or more\n"
    assert row in shown
    json.dumps(found.as_data())


def picking(todo: plan.Plan, arguments: str) -> Content:
    """The same payload on Ubuntu's medium."""
    made = direct(todo)
    live = {
        "/boot/grub/grub.cfg": with_arguments(arguments).encode(),
        "/casper/install-sources.yaml": CATALOGUE.encode(),
        "/builder/live/user-data": auto("version: 1, early-commands: [installer.pick]").encode(),
        "/builder/live/meta-data": b"",
    }
    texts = {name: text for name, text in made.texts.items() if not name.startswith("/boot/")} | live
    names = [*(f"/casper/{layer.file}" for layer in todo.layers), *LIVE_SERVER]
    files = {name: size for name, size in made.files.items() if not name.startswith("/boot/")}
    return replace(made, texts=texts, files={**dict.fromkeys(names, 5), **files}, pin=None)


def test_a_remastered_medium_says_who_is_installed(planned: plan.Plan) -> None:
    made = hashlib.sha256(direct(planned).texts["/builder/manifest.json"]).hexdigest()
    found = inspect.inspect(
        picking(planned, f"autoinstall ds=nocloud\\;s=/cdrom/builder/live/ builder.manifest={made}")
    )
    assert found.problems == ()
    assert found.does == f"asks nobody: {OURS}"
    assert [(seed.place, seed.here) for seed in found.seeds] == [("/cdrom/builder/live/", True)]
    assert [layer.name for layer in found.layers][:3] == [
        "node.squashfs",
        "node.site.squashfs",
        "ubuntu-server-minimal.squashfs",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (f"builder.manifest={SHA}", f"its kernel line accepts another manifest, {SHA[:16]}…"),
        ("", "its kernel line accepts no manifest at all"),
    ],
)
def test_a_kernel_line_of_another_payload(planned: plan.Plan, arguments: str, problem: str) -> None:
    found = inspect.inspect(picking(planned, f"autoinstall ds=nocloud\\;s=/cdrom/builder/live/ {arguments}"))
    assert found.problems == (f"Try or Install Ubuntu Server: {problem}",)


@pytest.mark.parametrize("pin", [SHA, ""])
def test_an_initramfs_of_another_payload(planned: plan.Plan, pin: str) -> None:
    found = inspect.inspect(replace(direct(planned), pin=pin or None))
    assert found.problems[0].startswith("/boot/initramfs.img accepts ")


def test_a_damaged_payload_is_named(planned: plan.Plan) -> None:
    made = direct(planned)
    sizes = {**made.files, "/builder/layers/node.squashfs": 4}
    del sizes["/builder/layers/node.site.squashfs"]
    texts = {**made.texts, "/builder/seeds/node1/meta-data": b"?" * made.files["/builder/seeds/node1/meta-data"]}
    found = inspect.inspect(replace(made, files=sizes, texts=texts))
    assert set(found.problems) == {
        "/builder/layers/node.squashfs has 4 bytes, and the manifest says 5",
        "/builder/layers/node.site.squashfs is missing",
        "/builder/seeds/node1/meta-data is not what the manifest says: its sha256 differs",
    }


@pytest.mark.parametrize("text", [b"{", b'{"format": 99}', b"\xff", b"[]"])
def test_a_manifest_that_cannot_be_understood(text: bytes) -> None:
    with pytest.raises(BuilderError, match=r"x\.iso: /builder/manifest\.json") as caught:
        inspect.inspect(content({"/builder/manifest.json": text}))
    assert caught.value.code == Exit.MEDIUM


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"ethernets: {a: {dhcp4: true}}", "dhcp"),
        (b"ethernets: {a: {dhcp4: false, addresses: [10.0.0.1/24]}}", "10.0.0.1"),
        (b"ethernets: {a: {}}", None),
        (b"ethernets: []", None),
        (b"{", None),
        (b"", None),
    ],
)
def test_the_address_in_a_seed(text: bytes, address: str | None) -> None:
    assert installed.address_of(Payload({}, {"seeds/x/network-config": text}), "seeds/x") == address
    assert installed.address_of(Payload({}, {}), "seeds/x") is None


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ({"largest": True, "min_size": 4 << 30, "overwrite": False}, "the largest disk of 4.0 GiB or more"),
        ({"serial": "S1", "overwrite": True}, "the disk with serial S1, whatever is on it"),
        ({"path": "/dev/disk/by-id/x*"}, "the disk with path /dev/disk/by-id/x*"),
    ],
)
def test_a_disk_rule_in_words(disk: dict[str, Any], words: str) -> None:
    assert show.disk_words(disk) == words


UBUNTU = """\
name: lab
network: {{subnet: 192.168.1.0/24}}
distribution: {{name: ubuntu, release: "24.04"}}
access: {{ssh_keys: ["{key}"], password_hash: "{hash}"}}
nodes: [{{name: left, match: {{mac: "02:00:00:50:70:01"}}}}]
storage: {{root: 60G, layout: lvm, luks: {{passphrase_file: passphrase}}}}
media: {{installer: subiquity, after: poweroff}}
"""


def test_what_becomes_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse\n")
    cluster = loads(UBUNTU.format(key=PUBLIC_KEY, hash=HASH), base=tmp_path)
    pins = Lock(lock.asks_of(cluster), 1, (), (), iso=LockedIso("ubuntu.iso", SHA, 5))
    found = inspect.inspect(direct(plan.make(cluster, pins)))
    table = show.table(found)
    for line in (
        "disk      root 60.0 GiB, logical volumes, encrypted",
        f"access    admin: {FINGERPRINT} me@laptop; a password",
        "after     the machine powers off",
        "secret    the passphrase of the nodes' disks is on it, for anyone who holds it",
        "secret    the hash of admin's password is on it, for anyone who holds it",
    ):
        assert f"\n{line}\n" in table
    data = json.dumps(found.as_data())
    assert "correct horse" not in table + data and HASH not in table + data
    assert found.as_data()["accounts"] == (
        {
            "name": "admin",
            "keys": ({"kind": "ssh-ed25519", "fingerprint": FINGERPRINT, "comment": "me@laptop"},),
            "password": True,
        },
    )


def test_a_key_that_is_none() -> None:
    assert installed.key("") == installed.Key("", "", "")
    assert installed.key("ssh-ed25519 ?") == installed.Key("ssh-ed25519", "", "")


def test_many_menu_entries_are_counted() -> None:
    entry = MENU[MENU.index("menuentry") : MENU.index("grub_platform")]
    found: Inspection = inspect.inspect(content(stock(menu=entry * 50)))
    assert len(found.kernels) == 50
    assert "  … and 38 more" in show.table(found)
