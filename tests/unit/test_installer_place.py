"""What the placing takes away, and what it refuses to place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.installer import facts, picked, place, system
from builder.installer.disk import Volume
from builder.installer.model import InstallError

# Every file that subiquity 24.04.4.1 and 26.04.1 and their curtin can write for the first boot.
LEFT = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/cdrom.sources",
    "etc/cloud/clean.d/99-installer",
    "etc/cloud/cloud-init.disabled",
    "etc/cloud/cloud.cfg.d/00-subiquity-disable-cloudinit-networking.cfg",
    "etc/cloud/cloud.cfg.d/20-disable-cc-dpkg-grub.cfg",
    "etc/cloud/cloud.cfg.d/50-curtin-networking.cfg",
    "etc/cloud/cloud.cfg.d/90-installer-network.cfg",
    "etc/cloud/cloud.cfg.d/99-installer.cfg",
    "etc/cloud/cloud.cfg.d/curtin-disable-cloudinit-networking.cfg",
    "etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg",
    "etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg",
    "etc/cloud/ds-identify.cfg",
    "etc/default/grub.d/50-curtin-settings.cfg",
    "etc/netplan/00-installer-config-wifi.yaml",
    "etc/netplan/00-installer-config.yaml",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
)
# What the node's own packages and the site layer have there.
KEPT = (
    "etc/apt/sources.list.d/ubuntu.sources",
    "etc/cloud/cloud.cfg",
    "etc/cloud/cloud.cfg.d/05_logging.cfg",
    "etc/cloud/cloud.cfg.d/90-builder.cfg",
    "etc/cloud/cloud.cfg.d/90_dpkg.cfg",
    "etc/cloud/templates/hosts.debian.tmpl",
    "etc/default/grub",
    "etc/fstab",
    "etc/netplan/01-network-manager-all.yaml",
    "etc/ssh/sshd_config.d/10-builder.conf",
)


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_subiquity_left_goes_and_nothing_else(tmp_path: Path) -> None:
    tree(tmp_path, *LEFT, *KEPT, "etc/machine-id")
    (tmp_path / "etc/machine-id").chmod(0o444)
    place.take_away(tmp_path)
    assert files(tmp_path) == {*KEPT, "etc/machine-id"}
    # Empty, and not missing: systemd makes a new one, and does not take this for the first boot of an image.
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert (tmp_path / "etc/machine-id").stat().st_mode & 0o777 == 0o644


def test_nothing_to_take_away(tmp_path: Path) -> None:
    tree(tmp_path, *KEPT)
    place.take_away(tmp_path)
    assert files(tmp_path) == {*KEPT, "etc/machine-id"}


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"node": "node1"}'])
def test_without_the_picker_nothing_is_placed(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picked, "PATH", tmp_path / "picked.json")
    if text is not None:
        (tmp_path / "picked.json").write_text(text)
    with pytest.raises(InstallError, match="nobody knows which node this is"):
        picked.read()
    assert place.touched(Path("/target")) == "of /target"


def test_what_was_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picked, "PATH", tmp_path / "picked.json")
    kept = {"node": "node1", "disk": "/dev/nvme0n1", "sector": 4096}
    (tmp_path / "picked.json").write_text(json.dumps(kept))
    assert picked.read() == picked.Picked("node1", "/dev/nvme0n1", 4096)
    assert place.touched(Path("/target")) == "/dev/nvme0n1"


def test_the_node_has_to_be_on_the_disk_that_was_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "parent_devices", lambda device: frozenset({"dm-0", "sda3", "sda"}))
    place.require_on("/dev/sda", tmp_path)
    with pytest.raises(InstallError, match=r"is on dm-0, sda, sda3, and the picker chose /dev/sdb"):
        place.require_on("/dev/sdb", tmp_path)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/dev/vda3", ("UUID=u",)),
        ("/dev/mapper/builder-root", ("UUID=u", "/dev/mapper/builder-root")),
    ],
)
def test_the_names_that_a_boot_menu_may_use(path: str, names: tuple[str, ...]) -> None:
    assert system.lasting_names(Volume(path, "u")) == names
