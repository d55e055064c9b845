"""Small ISOs for tests: the shape of Ubuntu's live-server, or any other tree, made by the real xorriso.

Nothing in them boots. The texts are those of the 24.04.3 and 26.04 ISOs where something reads them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from builder.run import run

INFO = 'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)\n'
MENU = """\
set timeout=30

loadfont unicode

set menu_color_normal=white/black
set menu_color_highlight=black/light-gray

menuentry "Try or Install Ubuntu Server" {
	set gfxpayload=keep
	linux	/casper/vmlinuz  ---
	initrd	/casper/initrd
}
grub_platform
if [ "$grub_platform" = "efi" ]; then
menuentry 'Boot from next volume' {
	exit 1
}
menuentry 'UEFI Firmware Settings' {
	fwsetup
}
else
menuentry 'Test memory' {
	linux16 /boot/memtest86+x64.bin
}
fi
"""
CATALOGUE = """\
- description:
    en: A small runtime footprint.
  id: ubuntu-server-minimal
  locale_support: none
  name:
    en: Ubuntu Server (minimized)
  path: ubuntu-server-minimal.squashfs
  size: 596627456
  type: fsimage
  variant: server
- default: true
  id: ubuntu-server
  locale_support: locale-only
  name:
    en: Ubuntu Server
  path: ubuntu-server-minimal.ubuntu-server.squashfs
  size: 1233199104
  type: fsimage-layered
  variant: server
"""
LIVE_SERVER: Mapping[str, str] = {
    "/.disk/info": INFO,
    "/.disk/casper-uuid-generic": "0" * 36,
    "/boot/grub/grub.cfg": MENU,
    "/casper/install-sources.yaml": CATALOGUE,
    "/casper/vmlinuz": "kernel",
    "/casper/initrd": "initrd",
    "/casper/ubuntu-server-minimal.squashfs": "minimal",
    "/casper/ubuntu-server-minimal.ubuntu-server.squashfs": "server",
    "/casper/ubuntu-server-minimal.ubuntu-server.installer.generic.squashfs": "installer",
    "/md5sum.txt": "",
}
DESKTOP: Mapping[str, str] = {
    **LIVE_SERVER,
    "/.disk/info": 'Ubuntu 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)\n',
    "/casper/install-sources.yaml": CATALOGUE.replace("variant: server", "variant: desktop"),
}


def with_arguments(arguments: str) -> str:
    """The menu with arguments on its kernel line."""
    return MENU.replace("vmlinuz  ---", f"vmlinuz {arguments} ---")


def make(path: Path, tree: Mapping[str, str | bytes], volume: str = "Ubuntu-Server 24.04.3 LTS amd64") -> Path:
    """Write an ISO with these files, as a hybrid image: GPT, and a partition after the file system."""
    with tempfile.TemporaryDirectory() as folder:
        top, esp = Path(folder) / "tree", Path(folder) / "esp"
        esp.write_bytes(bytes(1 << 20))
        for name, content in tree.items():
            target = top / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        argv: list[str | Path] = ["xorriso", "-as", "mkisofs", "-quiet", "-o", path, "-V", volume, "-r", "-J"]
        argv += ["-append_partition", "2", "0xef", esp, "-appended_part_as_gpt", "-partition_offset", "16", top]
        run(argv, step="making an ISO")
    return path
