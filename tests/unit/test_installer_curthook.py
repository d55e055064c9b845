"""What curtin is given to run in place of its own last steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder import autoinstall, checks, plan, render
from builder.installer import commands, curthook, place, system
from builder.installer.console import Console
from builder.installer.disk import Volume
from builder.installer.model import InstallError
from builder.spec.load import loads

# As curtin's block_meta.py writes them; the links are udev's of systemd 257.
FSTAB = """\
# / was on /dev/vda4 during curtin installation
/dev/disk/by-uuid/4aa5 / ext4 errors=remount-ro 0 1
# /boot/efi was on /dev/vda2 during curtin installation
/dev/disk/by-path/pci-0000:00:04.0-part/by-uuid/2919-D8AB /boot/efi vfat umask=0077,nofail 0 1
/dev/disk/by-id/dm-uuid-LVM-eZPf /srv/models ext4 ro,nofail 0 1
"""
UUIDS = {"": "4aa5", "boot/efi": "2919-D8AB", "srv/models": "90d2"}
LASTS = """\
# / was on /dev/vda4 during curtin installation
UUID=4aa5	/	ext4	errors=remount-ro	0	1
# /boot/efi was on /dev/vda2 during curtin installation
UUID=2919-D8AB	/boot/efi	vfat	umask=0077,nofail	0	1
UUID=90d2	/srv/models	ext4	ro,nofail	0	1
"""
CRYPTTAB = "builder-crypt UUID=9c1e none luks\n"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A node whose layers are unpacked: its own fstab mounts nothing, as mmdebstrap leaves it."""
    root = tmp_path / "target"
    system.write(root / "etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n", 0o644)
    for file in plan.for_subiquity():
        render.write(file, root)
    return root


@pytest.fixture
def fstab(tmp_path: Path) -> Path:
    system.write(tmp_path / "state/fstab", FSTAB, 0o600)
    return tmp_path / "state/fstab"


@pytest.fixture
def console(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    """And what is mounted of the target."""
    volumes = {target / point: Volume("/dev/x", uuid) for point, uuid in UUIDS.items()}
    monkeypatch.setattr(place, "mounted", lambda point, console: volumes[point])
    return Console((), tmp_path / "log")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is started in the node, in order; the mounts around it are the boot test's to try."""
    argvs: list[list[str]] = []

    @contextmanager
    def entered(target: Path, log: object = None) -> Iterator[None]:
        argvs.append(["enter"])
        yield
        argvs.append(["leave"])

    monkeypatch.setattr(system, "entered", entered)
    monkeypatch.setattr(commands, "run", lambda argv, **_: argvs.append(argv))
    return argvs


def test_the_node_mounts_what_curtin_has_made_by_names_that_last(
    console: Console, target: Path, fstab: Path, ran: list[list[str]]
) -> None:
    curthook.hook(console, target, fstab)
    assert (target / "etc/fstab").read_text() == system.FSTAB_HEAD + LASTS
    assert (target / "etc/fstab").stat().st_mode & 0o777 == 0o644
    assert not (target / "etc/crypttab").exists()
    assert ran == []  # the initramfs of the layer does
    place.require_hooked(target)


def test_an_encrypted_node_gets_an_initramfs_that_opens_it(
    console: Console, target: Path, fstab: Path, ran: list[list[str]]
) -> None:
    fstab.with_name("crypttab").write_text(CRYPTTAB)
    curthook.hook(console, target, fstab)
    assert (target / "etc/crypttab").read_text() == CRYPTTAB
    assert ran == [["enter"], ["chroot", str(target), "update-initramfs", "-u", "-k", "all"], ["leave"]]


@pytest.mark.parametrize("text", [None, "", "# /dev/sda1 / ext4\n", "/dev/sda2 /boot/efi vfat\n", "/dev/sda1\n"])
def test_without_a_root_nothing_is_written(
    text: str | None, console: Console, target: Path, fstab: Path, ran: list[list[str]]
) -> None:
    fstab.unlink()
    if text is not None:
        fstab.write_text(text)
    with pytest.raises(InstallError, match=r"of curtin's (mounts no /|cannot be read: No such file)"):
        curthook.hook(console, target, fstab)
    assert "UNCONFIGURED" in (target / "etc/fstab").read_text()


def test_a_file_system_without_a_uuid_is_no_name_that_lasts() -> None:
    with pytest.raises(InstallError, match="the file system at / has no UUID that udev knows"):
        curthook.by_uuid(FSTAB, lambda point: "")
    assert (
        curthook.by_uuid("UUID=1 / ext4\n\n# x\ntmpfs /tmp tmpfs\n", str)
        == "UUID=1 / ext4\n\n# x\ntmpfs /tmp tmpfs\n"
    )


def test_a_node_that_was_not_hooked_is_not_placed(target: Path) -> None:
    with pytest.raises(InstallError, match="curtin did not run the layers' /curtin/curtin-hooks"):
        place.require_hooked(target)
    (target / "etc/fstab").unlink()
    with pytest.raises(InstallError, match="mounts no /"):
        place.require_hooked(target)


@pytest.mark.parametrize(("media", "brings"), [("{installer: subiquity}", True), ("{}", False)])
def test_only_nodes_that_curtin_installs_bring_it(media: str, brings: bool) -> None:
    cluster = loads(
        "name: lab\nnetwork: {subnet: 192.168.1.0/24}\n"
        "nodes: [{name: left, match: {serial: S1}, interface: eth0}]\n"
        f'distribution: {{name: ubuntu, release: "26.04"}}\nmedia: {media}\n'
    )
    todo = plan.make(cluster, None)
    assert [file in todo.site for file in plan.for_subiquity()] == [brings] * 3
    assert any("/curtin/curtin-hooks" in check.argv for check in checks.wanted(todo)) is brings


def test_curtin_runs_it_with_nothing_of_its_own(target: Path) -> None:
    """curtin starts it as a program of the live system's, found below the target."""
    script = next(file for file in plan.for_subiquity() if file.path.startswith("/curtin/"))
    assert (script.path, script.mode) == ("/curtin/curtin-hooks", 0o755)
    text = script.content.decode()
    assert text.startswith("#!/bin/sh\n")
    assert f"PYTHONPATH={autoinstall.LIVE} " in text
    assert "exec env -i " in text
    assert text.endswith(f"python3 -B -m installer.{curthook.__name__.rpartition('.')[2]}\n")
    place.take_away(target)
    assert not any((target / file.path[1:]).exists() for file in plan.for_subiquity())
    assert not (target / "curtin").exists()


@pytest.mark.parametrize("missing", ["TARGET_MOUNT_POINT", "OUTPUT_FSTAB"])
def test_what_curtin_does_not_say_is_a_failure(
    missing: str,
    console: Console,
    target: Path,
    fstab: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TARGET_MOUNT_POINT", str(target))
    monkeypatch.setenv("OUTPUT_FSTAB", str(fstab))
    monkeypatch.setattr(curthook, "active_ttys", lambda: ())
    monkeypatch.setattr(curthook, "Console", lambda ttys: console)
    assert curthook.main() == 0
    monkeypatch.delenv(missing)
    assert curthook.main() == 1
    assert (
        "builder-failed tables: curtin said no TARGET_MOUNT_POINT, or no OUTPUT_FSTAB" in capsys.readouterr().err
    )
