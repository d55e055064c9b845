"""Kernel modules compiled for the image's kernels, in a root that is thrown away.

The root is packages that are only unpacked (compiler, headers, the driver's source), pinned by the lock, and what
runs in it has no network. Nothing of it gets into the image but the modules.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import sandbox
from builder.console import ticker
from builder.errors import BuilderError, Exit
from builder.files import mismatch, sha256_of
from builder.run import Completed, run
from builder.sources.apt import Package

# What computing needs; nvidia-drm is for screens, nvidia-peermem for InfiniBand.
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset")
FOLDER = "updates/builder"  # depmod prefers updates/ to the kernel's own modules

_ERROR = re.compile(
    r"^.*(?:\berror: |\bERROR: |undefined!|No rule to make target|command not found).*$", re.MULTILINE
)


@dataclass(frozen=True)
class Key:
    """What signs a module: PEM files on this machine."""

    private: Path
    certificate: Path


@dataclass(frozen=True)
class Source:
    """The driver's source in the root: ``name`` as under /usr/src, which ends with the driver's ``version``."""

    name: str
    version: str


def root_of(packages: Sequence[Package], blobs: Mapping[str, Path], root: Path) -> None:
    """Unpack the root for compiling. base-files is first: the others are unpacked through its links."""
    root.mkdir(parents=True)
    for package in sorted(packages, key=lambda package: package.name != "base-files"):
        run(["dpkg-deb", "--extract", blobs[package.sha256], root], step=f"unpacking {package.name}")
    # What Debian's alternatives would make; nothing here is configured.
    (root / "usr/bin/awk").symlink_to("mawk")
    for point in ("dev", "mnt", "proc", "run", "tmp"):
        (root / point).mkdir(exist_ok=True)


def source_in(root: Path) -> Source:
    """The driver's source that the root's packages brought. Raises BuilderError (BUG) if it is not one."""
    found = [path.name for path in (root / "usr/src").iterdir() if (path / "dkms.conf").is_file()]
    if len(found) != 1:
        raise BuilderError(f"one driver's source was expected in /usr/src, and there is {found}", code=Exit.BUG)
    return Source(found[0], found[0].rpartition("-")[2])


def patch(root: Path, source: Source, patches: Mapping[Path, str]) -> None:
    """Apply patches (file → SHA-256) to the source, in their order.

    Raises BuilderError (SPEC): a file that is not what the spec says, or that does not apply.
    """
    for file, sha256 in patches.items():
        if (actual := sha256_of(file)) != sha256:
            raise mismatch(
                str(file), sha256, actual, code=Exit.SPEC, hint="mend gpu.patches in the spec, or the file"
            )
        argv = ["patch", "--batch", "--forward", "-p1", "-d", "/mnt/source", "-i", f"/mnt/patches/{file.name}"]
        binds = {"source": root / "usr/src" / source.name, "patches": file.parent}
        done = _inside(root, argv, binds, step=f"patching {source.name}", check=False)
        if done.returncode != 0:
            said = "\n".join(f"  | {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-8:])
            raise BuilderError(
                f"{file} does not apply to {source.name}\n{said}",
                hint="the lock has another version of the driver than the patch was made for, perhaps",
                code=Exit.SPEC,
            )


def build(root: Path, source: Source, kernel: str, target: Path, works: str) -> None:
    """Compile the modules for a kernel into ``target``; ``works``: what to do when they do not compile, in words.

    Raises BuilderError with the compiler's first error.
    """
    tree = target.with_name(f"source-{kernel}")
    shutil.copytree(root / "usr/src" / source.name, tree, symlinks=True)
    argv = [
        *("env", "KBUILD_BUILD_TIMESTAMP=@0", "KBUILD_BUILD_USER=builder", "KBUILD_BUILD_HOST=builder"),
        *("NV_BUILD_USER=builder", "NV_BUILD_HOST=builder", "DATE=date -ud@0"),  # NVIDIA's own; for equal bytes
        *("make", "-C", "/mnt/source", f"-j{os.cpu_count() or 1}", "modules"),
        *(f"KERNEL_UNAME={kernel}", f"NV_KERNEL_MODULES={' '.join(MODULES)}"),
    ]
    done = _inside(
        root, argv, {"source": tree}, step=f"compiling {source.name} for {kernel}", check=False, tick=True
    )
    if done.returncode != 0:
        raise failure(source, kernel, done.stdout, works)
    target.mkdir(parents=True)
    for name in MODULES:
        shutil.copy(_made(tree, name), target / f"{name}.ko")
        argv = ["strip", "--strip-debug", f"/mnt/modules/{name}.ko"]
        _inside(root, argv, {"modules": target}, step=f"stripping {name}")
    shutil.rmtree(tree)


def _made(tree: Path, name: str) -> Path:
    """The compiled module: at the top where a distribution packaged the source, below in NVIDIA's own packages.

    Raises BuilderError if the source made none, or several.
    """
    found = sorted(tree.rglob(f"{name}.ko"))
    if len(found) != 1:
        raise BuilderError(
            f"the source compiled without an error, and made {len(found)} modules {name}.ko",
            hint="the driver's packages are laid out in a way that this builder does not know",
        )
    return found[0]


def failure(source: Source, kernel: str, log: str, works: str) -> BuilderError:
    """The error for modules that do not compile: the compiler's first error, who it was, and what would work."""
    lines = log.strip().splitlines()
    found = _ERROR.search(log)
    start = lines.index(found[0]) if found else max(0, len(lines) - 10)
    quoted = "\n".join(f"  | {line}" for line in lines[start : start + 5])
    return BuilderError(
        f"{source.name} does not compile for the kernel {kernel}; the first error:\n{quoted}",
        hint=works,
    )


def require_pair(root: Path, key: Key) -> None:
    """Raises BuilderError (SPEC) unless key and certificate belong together: what they sign would never load."""
    halves = []
    for path, reads in ((key.private, ["pkey", "-pubout"]), (key.certificate, ["x509", "-noout", "-pubkey"])):
        argv = ["openssl", *reads, "-in", f"/mnt/given/{path.name}"]
        done = _inside(root, argv, {"given": path.parent}, step=f"reading {path.name}", check=False)
        if done.returncode != 0:
            why = (done.stderr or done.stdout).strip().partition("\n")[0]
            raise BuilderError(f"{path}, which gpu.mok names, cannot be read: {why}", code=Exit.SPEC)
        halves.append(done.stdout)
    if halves[0] != halves[1]:
        raise BuilderError(
            f"{key.certificate} is not the certificate of {key.private}: no node would take what it signs",
            hint="mend gpu.mok in the spec; docs/gpu.md says how both are made",
            code=Exit.SPEC,
        )


def sign(root: Path, kernel: str, modules: Path, key: Key) -> None:
    """Sign every module for Secure Boot, by a program of the kernel's. Raises BuilderError if it does not."""
    # Debian has it once for each version of the kernel, Ubuntu with the headers of each kernel.
    places = ("usr/lib/linux-kbuild-*/scripts/sign-file", "usr/src/linux-headers-*/scripts/sign-file")
    program = sorted(path for place in places for path in root.glob(place))[-1]
    for path in sorted(modules.glob("*.ko")):
        run_key = {"key": key.private.parent, "certificate": key.certificate.parent, "modules": modules}
        argv = [
            *(f"/{program.relative_to(root)}", "sha256", f"/mnt/key/{key.private.name}"),
            *(f"/mnt/certificate/{key.certificate.name}", f"/mnt/modules/{path.name}"),
        ]
        _inside(root, argv, run_key, step=f"signing {path.name} for {kernel}")


def depmod(root: Path, kernel: str, tree: Path) -> None:
    """Write the lists of a kernel's modules anew; ``tree`` holds usr/lib/modules with all of them."""
    argv = ["depmod", "-b", "/mnt/tree/usr", kernel]
    _inside(root, argv, {"tree": tree}, step=f"listing the modules of {kernel}")


def _inside(
    root: Path,
    argv: Sequence[str],
    binds: Mapping[str, Path],
    *,
    step: str,
    check: bool = True,
    tick: bool = False,
) -> Completed:
    command = sandbox.bwrap_argv(root, argv, binds, as_root=os.geteuid() == 0)
    return run(command, step=step, check=check, on_line=ticker("cc") if tick else (lambda _line: None))
