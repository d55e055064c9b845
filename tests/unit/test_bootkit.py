"""Where the parts of a boot kit are, on each distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.media import bootkit

BOTH = (
    "boot/vmlinuz-6.8.0-60-generic",
    "boot/initrd.img-6.8.0-60-generic",
    "usr/lib/grub/i386-pc/boot_hybrid.img",
    "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
)
# shim-signed and shim-helpers-amd64-signed of Debian 13, with shim-unsigned beside them.
DEBIAN = ("usr/lib/shim/shimx64.efi.signed", "usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi")
# shim-signed of Ubuntu 24.04.
UBUNTU = (
    "usr/lib/shim/shimx64.efi.signed.latest",
    "usr/lib/shim/shimx64.efi.signed.previous",
    "usr/lib/shim/mmx64.efi",
)
ALTERNATIVES = {
    "usr/lib/shim/shimx64.efi.signed": "/etc/alternatives/shimx64.efi.signed",
    "etc/alternatives/shimx64.efi.signed": "/usr/lib/shim/shimx64.efi.signed.latest",
    "boot/vmlinuz": "vmlinuz-6.8.0-60-generic",
}


def root(folder: Path, *files: str, links: dict[str, str] | None = None) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name, target in (links or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    return folder


def found(folder: Path) -> dict[str, str]:
    return {name: path.read_text() for name, path in bootkit.parts(folder).items()}


def test_debian_s(tmp_path: Path) -> None:
    parts = found(root(tmp_path, *BOTH, *DEBIAN))
    assert parts["shim.efi"] == "usr/lib/shim/shimx64.efi.signed"
    assert parts["mm.efi"] == "usr/lib/shim/mmx64.efi.signed"
    assert parts["grub.efi"].endswith("gcdx64.efi.signed")
    assert parts["grubnet.efi"].endswith("grubnetx64.efi.signed")


def test_ubuntu_s(tmp_path: Path) -> None:
    parts = found(root(tmp_path, *BOTH, *UBUNTU, links=ALTERNATIVES))
    assert parts["shim.efi"] == "usr/lib/shim/shimx64.efi.signed.latest"
    assert parts["mm.efi"] == "usr/lib/shim/mmx64.efi"
    assert parts["vmlinuz"] == "boot/vmlinuz-6.8.0-60-generic"


def test_a_link_out_of_the_layer_is_not_followed(tmp_path: Path) -> None:
    """It would be the file of the machine that builds, which may run another release."""
    (tmp_path / "host").write_text("the host's")
    links = {"usr/lib/shim/shimx64.efi.signed": str(tmp_path / "host")}
    folder = root(tmp_path / "layer", *BOTH, "usr/lib/shim/mmx64.efi", links=links)
    with pytest.raises(BuilderError, match=r"0 files usr/lib/shim/shimx64\.efi\.signed\.latest or "):
        bootkit.parts(folder)


@pytest.mark.parametrize(
    ("without", "with_", "said"),
    [
        ("usr/lib/shim/mmx64.efi", (), "0 files usr/lib/shim/mmx64.efi.signed or usr/lib/shim/mmx64.efi"),
        ("", ("boot/vmlinuz-6.8.0-61-generic",), "2 files boot/vmlinuz-"),
    ],
)
def test_none_and_two_are_refused(without: str, with_: tuple[str, ...], said: str, tmp_path: Path) -> None:
    files = [name for name in (*BOTH, *UBUNTU, *with_) if name != without]
    with pytest.raises(BuilderError) as caught:
        bootkit.parts(root(tmp_path, *files))
    assert said in str(caught.value)
