"""Gather the direct installer's files. Runs inside an unpacked base layer, with its own Python:

    python3 -B assemble.py FOLDER-WITH-THE-PACKAGE-installer FOLDER-TO-FILL

The initramfs that goes with a node's kernel (initramfs-tools) already has udev, drivers and busybox. What the
installer needs beyond that is taken from the same packages: programs with their libraries, and the part of
Python's library that importing the installer really loads. Programs go to a folder of their own, since in an
initramfs /usr/bin/mount and others are names of busybox, and writing to one would change them all.
"""

import importlib
import importlib.util
import pkgutil
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

RECIPE, OUT = Path(sys.argv[1]), Path(sys.argv[2])
HOME = "/usr/lib/builder"  # in the initramfs

PROGRAMS = (
    *("blkid", "blockdev", "chroot", "dumpe2fs", "e2fsck", "lsblk", "mkfs.ext4", "mkfs.vfat", "mount", "openssl"),
    *("sfdisk", "udevadm", "umount", "unsquashfs", "wipefs"),
    # for people at the rescue shell
    *("findmnt", "less", "losetup"),
)
# udev tells the label of a disc only through this helper, which initramfs-tools leaves out.
HELPERS = ("/usr/lib/udev/cdrom_id",)
PLAIN_FILES = ("/etc/mke2fs.conf", "/usr/lib/udev/rules.d/60-cdrom_id.rules")
# Loaded by name at run time, which no import statement shows.
HIDDEN_IMPORTS = ("encodings.idna", "encodings.ascii", "encodings.latin_1", "encodings.utf_8")


def copy(source: Path, target: str) -> None:
    """Copy a regular file; its parent folders come into being."""
    place = OUT / target.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        shutil.copy(source, place)


def copy_with_libraries(source: Path, target: str) -> None:
    """Copy an ELF file, and every library that ldd names, to where the loader will look for it."""
    copy(source, target)
    listed = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
    for word in listed.split():
        if word.startswith("/"):
            copy(Path(word).resolve(), str(Path(word).parent.resolve() / Path(word).name))


def program(name: str) -> None:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        sys.exit(f"{name} is not in the base layer; the direct installer needs it")
    copy_with_libraries(Path(found).resolve(), f"{HOME}/bin/{name}")


def python() -> None:
    """The interpreter, the installer, and the modules that it loads."""
    for module in HIDDEN_IMPORTS:
        importlib.import_module(module)
    sys.path.insert(0, str(RECIPE))
    package = importlib.import_module("installer")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"installer.{module.name}")
    copy_with_libraries(Path(sys.executable).resolve(), "/usr/bin/python3")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is None or module.__name__ == "__main__":
            continue
        target = file.replace(str(RECIPE), HOME, 1)
        if file.endswith(".so"):
            copy_with_libraries(Path(file), target)
        else:
            copy(Path(file), target)
            # An initramfs does not keep times, so the cache must not be checked against them.
            py_compile.compile(
                file,
                cfile=str(OUT / importlib.util.cache_from_source(target).lstrip("/")),
                dfile=target,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                doraise=True,
            )


def main() -> None:
    for name in PROGRAMS:
        program(name)
    for name in HELPERS:
        copy_with_libraries(Path(name), name)
    for name in PLAIN_FILES:
        copy(Path(name), name)
    python()


main()
