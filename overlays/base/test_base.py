"""Checks of the base layer on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())


def manifest(host):
    return json.loads(host.file("/usr/share/builder/manifest.json").content_string)


def test_the_plan_is_the_medium_s(host):
    assert manifest(host)["plan"] == FACTS["plan"]


def test_exactly_the_locked_packages_are_installed(host):
    shown = host.check_output("dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\\n'")
    locked = {f"{p['name']} {p['version']} {p['architecture']}" for p in manifest(host)["packages"]}
    assert set(shown.splitlines()) == locked


def test_only_root_may_write_to_system_folders(host):
    assert (host.file("/").user, host.file("/").mode) == ("root", 0o755)
    # Not what lies in a folder that others cannot enter, as the state of a dynamic user does.
    closed = "-type d ! -perm -0001 -prune"
    assert host.check_output(f"find / -xdev {closed} -o -type d -perm -0002 ! -perm -1000 -print") == ""


def test_no_unit_failed(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_identity_was_made_here_and_not_in_the_image(host):
    assert len(host.file("/etc/machine-id").content_string.strip()) == 32
    for key in host.check_output("ls /etc/ssh/ssh_host_*_key").split():
        # The image has none, so a key's file cannot be older than this node's installation.
        assert host.file(key).mtime > host.file("/etc/fstab").mtime


def test_the_build_left_no_trace(host):
    assert not host.file("/etc/apt/apt.conf.d/99mmdebstrap").exists
    assert not host.file("/etc/dpkg/dpkg.cfg.d/99mmdebstrap").exists
    assert host.run("grep -rqs 'copy:' /etc/apt").rc == 1


def test_apt_knows_its_archive(host):
    assert f"/dists/{FACTS['release']}/InRelease" in host.check_output("apt-get update --print-uris")


def test_root_is_mounted_by_uuid(host):
    assert host.file("/proc/cmdline").contains("root=UUID=")
    for line in host.file("/etc/fstab").content_string.splitlines():
        assert line.startswith(("#", "UUID="))


def test_both_boot_loaders_are_there(host):
    assert host.file("/boot/efi/EFI/BOOT/BOOTX64.EFI").exists
    assert host.file("/boot/grub/i386-pc/core.img").exists
