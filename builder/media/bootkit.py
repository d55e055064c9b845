"""The boot kit: what starts a machine from a medium, all of it from the base layer's own packages.

    vmlinuz, initramfs.img   the node's kernel and initramfs, with the installer appended
    bios.img                 GRUB for BIOS, for El Torito; hybrid.img its master boot record for sticks
    shim.efi, grub.efi, mm.efi   the distribution's signed boot chain for UEFI, Secure Boot included
    grubnet.efi, grub.pxe        GRUB for the network: signed, after shim, and for BIOS

Made once per base layer and installer, so that a change to the spec does not make it again.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import console, cpio, render, resources, sandbox
from builder.cache import Cache
from builder.canonical import PACKAGE, code_digest, digest, resource_digest
from builder.errors import BuilderError
from builder.plan import Plan
from builder.run import run

GRUB_BIOS_MODULES = (
    *("biosdisk", "chain", "configfile", "echo", "fat", "iso9660", "linux", "ls", "normal", "part_gpt"),
    *("part_msdos", "regexp", "search", "search_fs_file", "serial", "sleep", "terminal", "test"),
)

# What is beyond a disc's GRUB, and what of it the network has no use for.
GRUB_PXE_MODULES = (
    *("biosdisk", "chain", "configfile", "echo", "http", "linux", "ls", "net", "normal", "pxe", "regexp"),
    *("serial", "sleep", "smbios", "terminal", "test", "tftp"),
)

# Name in the kit → where it is, as globs; of several the first that is there.
_FROM_BASE: Mapping[str, tuple[str, ...]] = {
    "vmlinuz": ("boot/vmlinuz-*",),
    "initrd.img": ("boot/initrd.img-*",),
    "hybrid.img": ("usr/lib/grub/i386-pc/boot_hybrid.img",),
    # Ubuntu ships the newest and the one before it, and a link to either.
    "shim.efi": ("usr/lib/shim/shimx64.efi.signed.latest", "usr/lib/shim/shimx64.efi.signed"),
    # gcdx64, not grubx64: its prefix is /boot/grub of the medium, the other's is /EFI/debian of a disk.
    "grub.efi": ("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",),
    # Signed on Ubuntu, too, where the name does not say so; on Debian what has that name is not.
    "mm.efi": ("usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"),
    "grubnet.efi": ("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",),
}


@dataclass(frozen=True)
class BootKit:
    """A finished boot kit."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def make(plan: Plan, base: Path, cache: Cache) -> BootKit:
    """The boot kit for a base layer, from the cache if it is there.

    Raises BuilderError if the base layer lacks a part, or has two kernels.
    """
    overlay = render.overlay("installer", {})
    assemble = resources.root() / "overlays" / "installer" / "assemble.py"
    key = digest(
        {
            "base": plan.base.digest,
            "code": code_digest("media/bootkit.py", "cpio.py", "installer"),
            "templates": resource_digest("overlays/installer", "templates/grub-early.cfg"),
        }
    )
    kit = BootKit(cache.product("bootkit", key))
    if kit.folder.exists():
        return kit
    with console.step("boot kit: kernel, installer, GRUB, shim"), cache.make("bootkit", key) as part:
        root = sandbox.tree(base, plan.base.digest, cache)
        for name, path in parts(root).items():
            shutil.copyfile(path, part / name)
        _grub_for_bios(root, part)
        _grub_for_pxe(root, part)
        _installer(root, part, plan.epoch, overlay, assemble)
    return kit


def early_menu() -> str:
    """What the GRUB inside the boot images runs: find our medium, and go on with the menu there."""
    return render.text("templates/grub-early.cfg", {})


def parts(root: Path) -> dict[str, Path]:
    """Name in the kit → file of an unpacked base layer. Raises BuilderError if one is missing, or there twice."""
    return {name: _only(root, patterns) for name, patterns in _FROM_BASE.items()}


def _only(root: Path, patterns: Sequence[str]) -> Path:
    # A link of an alternative is absolute, and would lead to this machine's file.
    listed = ([path for path in sorted(root.glob(pattern)) if not path.is_symlink()] for pattern in patterns)
    found = next(filter(None, listed), [])
    if len(found) != 1:
        raise BuilderError(
            f"the base layer has {len(found)} files {' or '.join(patterns)}, one was expected: "
            f"{[path.name for path in found]}",
            hint="a second kernel among distribution.packages, perhaps",
        )
    return found[0]


def _grub_for_bios(root: Path, part: Path) -> None:
    (part / "early.cfg").write_text(early_menu())
    argv = [
        *("grub-mkimage", "--format", "i386-pc-eltorito", "--prefix", "/boot/grub"),
        *("--config", "/mnt/kit/early.cfg", "--output", "/mnt/kit/bios.img", *GRUB_BIOS_MODULES),
    ]
    sandbox.inside(root, argv, step="making GRUB for BIOS", binds={"kit": part})


def _grub_for_pxe(root: Path, part: Path) -> None:
    """The same prefix as the signed one's: one menu for both."""
    argv = [
        *("grub-mkimage", "--format", "i386-pc-pxe", "--prefix", "/grub"),
        *("--output", "/mnt/kit/grub.pxe", *GRUB_PXE_MODULES),
    ]
    sandbox.inside(root, argv, step="making GRUB for BIOS over the network", binds={"kit": part})


def _installer(root: Path, part: Path, epoch: int, overlay: tuple[render.File, ...], assemble: Path) -> None:
    """Gather the installer as an archive of its own, to follow the node's initramfs."""
    with tempfile.TemporaryDirectory(prefix="builder-installer-") as folder:
        recipe, gathered = Path(folder) / "recipe", Path(folder) / "gathered"
        gathered.mkdir()
        shutil.copytree(PACKAGE / "installer", recipe / "installer", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(assemble, recipe)
        sandbox.inside(
            root,
            ["python3", "-B", "/mnt/recipe/assemble.py", "/mnt/recipe", "/mnt/gathered"],
            step="gathering the installer",
            binds={"recipe": recipe, "gathered": gathered},
        )
        archive = part / "installer.cpio"
        archive.write_bytes(cpio.archive([*overlay, *_tree(gathered)], epoch))
    run(["zstd", "--quiet", "-10", "--rm", archive], step="packing the installer")


def _tree(top: Path) -> Iterator[render.File]:
    for path in sorted(top.rglob("*")):
        target = "/" + str(path.relative_to(top))
        if path.is_symlink():
            yield render.File(target, 0o777, link=str(path.readlink()))
        elif path.is_file():
            yield render.File(target, stat.S_IMODE(path.stat().st_mode), path.read_bytes())


def initramfs(kit: BootKit, manifest_sha256: str, target: Path, epoch: int) -> None:
    """Write one initramfs: the node's, the installer, and the digest of the only manifest it will accept."""
    pin = render.File("/etc/builder/manifest.sha256", 0o644, f"{manifest_sha256}\n".encode())
    _write(kit, pin, target, epoch)


def network_initramfs(kit: BootKit, public_key: bytes, target: Path, epoch: int) -> None:
    """The same for a boot over the network: with the key that a manifest must be signed with."""
    _write(kit, render.File("/etc/builder/manifest.pub", 0o644, public_key), target, epoch)


def _write(kit: BootKit, pin: render.File, target: Path, epoch: int) -> None:
    """Linux unpacks archives that follow one another, each starting at a multiple of 4 bytes."""
    archive = cpio.archive([pin], epoch)
    with target.open("wb") as out:
        for content in (kit["initrd.img"].read_bytes(), kit["installer.cpio.zst"].read_bytes(), archive):
            out.write(content)
            out.write(b"\0" * (-len(content) % 4))
