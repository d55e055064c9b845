"""A fixture: an ISO laid out as Ubuntu's live-server ISO is, made from Debian's packages.

The real one is gigabytes and comes from a network; what matters of it here is its shape. Sources: the listing
and ``xorriso -report_el_torito as_mkisofs`` of the 24.04.3 ISO, its grub.cfg, and for 26.04 livecd-rootfs, whose
isobuilder makes it. GPT with the ISO 9660 file system as partition 1 and an appended ESP as partition 2, El Torito
for BIOS and UEFI, GRUB's hybrid master boot record, Rock Ridge and Joliet, the menu word for word. GRUB and shim
are Debian's: those on the host, else unpacked from their packages into the cache; ``gcdx64`` for UEFI, as on
Ubuntu's, whose prefix is /boot/grub of the medium.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from builder.cache import default_root
from builder.files import complete_or_absent
from builder.run import run

EPOCH = 1_754_400_000  # 2025-08-05, when 24.04.3 was made; seconds since 1970
ESP_TYPE = "28732ac11ff8d211ba4b00a0c93ec93b"
BASIC_DATA = "a2a0d0ebe5b9334487c068b6b72699c7"
ESP_SECTORS = 12288  # of 512 bytes; Ubuntu's has 10160, and Debian's GRUB is larger

LAYERS = (
    "ubuntu-server-minimal",
    "ubuntu-server-minimal.ubuntu-server",
    "ubuntu-server-minimal.ubuntu-server.installer",
    "ubuntu-server-minimal.ubuntu-server.installer.generic",
)
NAMES = {"24.04": "Noble Numbat", "26.04": "Resolute Raccoon"}

_PACKAGES = ("grub-efi-amd64-signed", "shim-signed", "shim-helpers-amd64-signed", "grub-pc-bin", "grub-common")
_PARTS = ("shim", "grub", "mm", "hybrid", "modules", "mkimage")


@dataclass(frozen=True)
class Grub:
    """Where GRUB and shim are: the host's ``/``, or a folder with the packages unpacked."""

    root: Path

    @property
    def shim(self) -> Path:
        return self.root / "usr/lib/shim/shimx64.efi.signed"

    @property
    def mm(self) -> Path:
        return self.root / "usr/lib/shim/mmx64.efi.signed"

    @property
    def grub(self) -> Path:
        return self.root / "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"

    @property
    def hybrid(self) -> Path:
        return self.modules / "boot_hybrid.img"

    @property
    def modules(self) -> Path:
        return self.root / "usr/lib/grub/i386-pc"

    @property
    def mkimage(self) -> Path:
        return self.root / "usr/bin/grub-mkimage"

    @property
    def complete(self) -> bool:
        return all(getattr(self, part).exists() for part in _PARTS)


def find_grub() -> Grub:
    """The host's GRUB and shim, else those of Debian's packages, unpacked once into the cache.

    Raises BuilderError if apt cannot download them.
    """
    host, unpacked = Grub(Path("/")), Grub(default_root() / "tests" / "grub")
    if host.complete:
        return host
    if not unpacked.complete:
        with (
            tempfile.TemporaryDirectory(prefix="builder-grub-") as folder,
            complete_or_absent(unpacked.root, step="unpacking GRUB for the fixture") as part,
        ):
            run(["apt-get", "download", *_PACKAGES], step="downloading GRUB for the fixture", cwd=Path(folder))
            for package in sorted(Path(folder).glob("*.deb")):
                run(["dpkg-deb", "--extract", package, part], step="unpacking GRUB for the fixture")
    return unpacked


def make(
    target: Path,
    *,
    kernel: Path | bytes,
    initrd: Path | bytes,
    release: str = "24.04.3",
    files: Mapping[str, Path | bytes] = {},
    hwe: bool = False,
    loopback: bool = False,
    catalog_version: Literal[1, 2] = 1,
    grub: Grub | None = None,
    joliet: bool = True,
) -> Path:
    """Write the fixture ISO to ``target`` and return it.

    ``files``: path on the medium, with or without a leading slash, → content; they are added, and win over what
    the fixture brings itself. The layers of the live system are a few bytes each unless ``files`` has them:
    nothing here boots further than ``initrd`` goes. With ``hwe`` the menu and ``/casper`` have a second kernel,
    the same bytes; ``loopback`` adds ``/boot/grub/loopback.cfg``.

    Raises BuilderError if a tool fails or is missing.
    """
    parts = grub or find_grub()
    with tempfile.TemporaryDirectory(prefix="builder-liveserver-", dir=target.parent) as folder:
        work = Path(folder)
        content: dict[str, Path | bytes] = {
            **_medium(release, catalog_version, hwe, loopback),
            **_boot_files(parts, work),
            "/casper/vmlinuz": kernel,
            "/casper/initrd": initrd,
        }
        if hwe:
            content |= {"/casper/hwe-vmlinuz": kernel, "/casper/hwe-initrd": initrd}
        content |= {f"/{path.lstrip('/')}": file for path, file in files.items()}
        content.setdefault("/md5sum.txt", md5sums(content))
        _esp(parts, work)
        argv = xorriso_argv(release, parts.hybrid, work / "esp.img", _staged(content, work), target, joliet=joliet)
        run(argv, step="writing the fixture ISO", env={"SOURCE_DATE_EPOCH": str(EPOCH)})
    return target


def volume(release: str) -> str:
    return f"Ubuntu-Server {release} LTS amd64"


def menu(*, release: str = "24.04.3", hwe: bool = False) -> str:
    """``/boot/grub/grub.cfg``, as on the real ISO; that of 26.04 is made by other code, and spells otherwise."""
    newer = not release.startswith("24.04")
    indent = "    " if newer else "\t"
    memory = "" if newer else "else\nmenuentry 'Test memory' {\n\tlinux16 /boot/memtest86+x64.bin\n}\n"
    return (
        "set timeout=30\n\nloadfont unicode\n\n"
        "set menu_color_normal=white/black\nset menu_color_highlight=black/light-gray\n\n"
        + _entries(release, hwe=hwe)
        + "grub_platform\n"
        'if [ "$grub_platform" = "efi" ]; then\n'
        f"menuentry 'Boot from next volume' {{\n{indent}exit 1\n}}\n"
        f"menuentry 'UEFI Firmware Settings' {{\n{indent}fwsetup\n}}\n" + memory + "fi\n"
    )


def loopback_menu(*, release: str = "24.04.3", hwe: bool = False) -> str:
    """``/boot/grub/loopback.cfg``, for those who start the ISO as a file from a GRUB of their own."""
    return "\n" + _entries(release, hwe=hwe).replace("---", "iso-scan/filename=${iso_path} ---")


def catalog(version: Literal[1, 2]) -> str:
    """``/casper/install-sources.yaml``: a plain list (24.04), or the mapping of 25.04 and later."""
    sources: list[dict[str, Any]] = [
        {
            "default": True,
            "description": {
                "en": "This version contains a curated selection of packages that provide a comfortable experience"
                " for operating your server."
            },
            "id": "ubuntu-server",
            "locale_support": "locale-only",
            "name": {"en": "Ubuntu Server"},
            "path": f"{LAYERS[1]}.squashfs",
            "size": 2_467_536_896,
            "type": "fsimage-layered",
            "variant": "server",
        },
        {
            "description": {
                "en": "This version has been customized to have a small runtime footprint in environments where"
                " humans are not expected to log in."
            },
            "id": "ubuntu-server-minimal",
            "locale_support": "none",
            "name": {"en": "Ubuntu Server (minimized)"},
            "path": f"{LAYERS[0]}.squashfs",
            "size": 1_069_277_184,
            "type": "fsimage-layered",
            "variant": "server",
        },
    ]
    data = sources if version == 1 else {"kernel": {"default": "linux-generic"}, "sources": sources, "version": 2}
    return yaml.safe_dump(data, default_flow_style=False)


def md5sums(content: Mapping[str, Path | bytes]) -> bytes:
    """``/md5sum.txt``: every file but itself and what xorriso writes into."""
    lines = []
    for path, file in sorted(content.items()):
        if path in ("/md5sum.txt", "/boot/grub/i386-pc/eltorito.img"):
            continue
        digest = hashlib.md5(usedforsecurity=False)
        if isinstance(file, bytes):
            digest.update(file)
        else:
            with file.open("rb") as opened:
                while chunk := opened.read(1 << 20):
                    digest.update(chunk)
        lines.append(f"{digest.hexdigest()}  .{path}\n")
    return "".join(lines).encode()


def xorriso_argv(
    release: str, hybrid: Path, esp: Path, sources: list[str], target: Path, *, joliet: bool
) -> list[str | Path]:
    """The command line that Ubuntu's own report of its ISO gives, with our files."""
    return [
        *("xorriso", "-abort_on", "SORRY", "-as", "mkisofs", "-quiet", "-o", target),
        *("-r", "-iso-level", "3", "-V", volume(release)),
        *(("-J", "-joliet-long") if joliet else ()),
        *("--modification-date=2025080513200000", "--set_all_file_dates", "2025080513200000"),
        *("--gpt_disk_guid", "4d8b3c0a-1f5e-4a3f-9b63-2404d00d2404"),
        *("--grub2-mbr", hybrid, "--protective-msdos-label", "-partition_cyl_align", "off"),
        *("-partition_offset", "16", "--mbr-force-bootable"),
        *("-append_partition", "2", ESP_TYPE, esp, "-appended_part_as_gpt"),
        *("-iso_mbr_part_type", BASIC_DATA),
        *("-c", "/boot.catalog", "-b", "/boot/grub/i386-pc/eltorito.img"),
        *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"),
        *("-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"),
        "-graft-points",
        *sources,
    ]


def _entries(release: str, *, hwe: bool) -> str:
    kernels = [("Try or Install Ubuntu Server", "")]
    if hwe:
        kernels.append(("Ubuntu Server with the HWE kernel", "hwe-"))
    if release.startswith("24.04"):
        indent, gap, end = "\t", "\t", "  ---"
    else:
        indent, gap, end = "    ", "    ", "  --- "
    return "".join(
        f'menuentry "{title}" {{\n{indent}set gfxpayload=keep\n{indent}linux{gap}/casper/{prefix}vmlinuz{end}\n'
        f"{indent}initrd{gap}/casper/{prefix}initrd\n}}\n"
        for title, prefix in kernels
    )


def _medium(release: str, catalog_version: Literal[1, 2], hwe: bool, loopback: bool) -> dict[str, Path | bytes]:
    """What is on the medium besides its kernel and its loaders."""
    series = ".".join(release.split(".")[:2])
    codename = NAMES[series]
    suite = codename.split()[0].lower()
    layers = [*LAYERS, *([f"{LAYERS[2]}.generic-hwe"] if hwe else [])]
    texts = {
        "/.disk/info": f'Ubuntu-Server {release} LTS "{codename}" - Release amd64 (20250805.1)',
        "/.disk/base_installable": "",
        "/.disk/cd_type": "live-server/20.04\n",
        "/.disk/casper-uuid-generic": "0b0b1c5e-7f56-4a1f-8a5b-d2404f1c57e5\n",
        "/.disk/release_notes_url": "",
        "/boot/grub/grub.cfg": menu(release=release, hwe=hwe),
        "/casper/install-sources.yaml": catalog(catalog_version),
        "/casper/filesystem.manifest": "base-files\t13ubuntu10\n",
        "/casper/filesystem.size": "2467536896\n",
        f"/dists/{suite}/Release": f"Origin: Ubuntu\nSuite: {suite}\nVersion: {series}\n",
        f"/dists/{suite}/main/binary-amd64/Packages": "",
        "/pool/main/b/base-files/base-files_13ubuntu10_amd64.deb": "no package in the fixture\n",
    }
    for layer in layers:
        texts |= {
            f"/casper/{layer}.{kind}": f"{layer} {kind}\n" for kind in ("squashfs", "squashfs.gpg", "manifest")
        }
        texts[f"/casper/{layer}.size"] = "1069277184\n"
    if series == "24.04":
        texts["/boot/memtest86+x64.bin"] = "no memory test in the fixture\n"
    if loopback:
        texts["/boot/grub/loopback.cfg"] = loopback_menu(release=release, hwe=hwe)
    return {path: text.encode() for path, text in texts.items()}


def _boot_files(parts: Grub, work: Path) -> dict[str, Path | bytes]:
    """The loaders. GRUB for BIOS finds the rest of its modules on the medium, as on Ubuntu's."""
    image = work / "eltorito.img"
    run(
        [
            *(parts.mkimage, "--directory", parts.modules, "--format", "i386-pc-eltorito"),
            *("--prefix", "/boot/grub", "--output", image, "biosdisk", "iso9660"),
        ],
        step="making GRUB for BIOS",
    )
    modules = {
        f"/boot/grub/i386-pc/{path.name}": path
        for path in sorted(parts.modules.iterdir())
        if path.suffix in (".mod", ".lst")
    }
    return {
        **modules,
        "/boot/grub/i386-pc/eltorito.img": image,
        "/EFI/boot/bootx64.efi": parts.shim,
        "/EFI/boot/grubx64.efi": parts.grub,
        "/EFI/boot/mmx64.efi": parts.mm,
    }


def _esp(parts: Grub, work: Path) -> None:
    at = ("-i", work / "esp.img")
    argvs: list[list[str | Path]] = [
        [
            "mformat",
            "-C",
            *at,
            "-T",
            str(ESP_SECTORS),
            *("-h", "2", "-s", "32", "-N", "24040003", "-v", "ESP", "::"),
        ],
        ["mmd", *at, "::/EFI", "::/EFI/boot"],
        ["mcopy", *at, parts.shim, "::/EFI/boot/bootx64.efi"],
        ["mcopy", *at, parts.grub, "::/EFI/boot/grubx64.efi"],
        ["mcopy", *at, parts.mm, "::/EFI/boot/mmx64.efi"],
    ]
    for argv in argvs:
        run(argv, step="making the fixture's ESP", env={"SOURCE_DATE_EPOCH": str(EPOCH)})


def _staged(content: Mapping[str, Path | bytes], work: Path) -> list[str]:
    """xorriso's sources: small files are written below ``work``, large ones stay where they are."""
    tree = work / "tree"
    tree.mkdir()
    (tree / "ubuntu").symlink_to(".")
    elsewhere = []
    for path, file in sorted(content.items()):
        if isinstance(file, bytes):
            (tree / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tree / path[1:]).write_bytes(file)
        else:
            elsewhere.append(f"{path}={file}")
    return [f"/={tree}", *elsewhere]
