"""What the tests of the installer's disk work share: image files, layers, the host's own tools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import run as host

MIB = 1 << 20
GIB = 1 << 30
MODEL = os.urandom(MIB) * 30


def tool(*argv: str | Path) -> str:
    """Run a host tool to check what the installer did."""
    return host.run(argv, step=str(argv[0])).stdout


def need(*programs: str) -> None:
    for program in programs:
        if host.which(program) is None:
            pytest.skip(f"{program} is not installed")


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def squash(source: Path, target: Path) -> Path:
    tool("mksquashfs", source, target, "-noappend", "-no-progress", "-quiet", "-all-root")
    return target


def can_mount(folder: Path) -> str:
    """Why loop devices cannot be mounted here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    image = sparse(folder / "probe", 8 * MIB)
    tool("mkfs.ext4", "-q", image)
    (folder / "mnt").mkdir()
    probe = host.run(["mount", "-o", "loop", image, folder / "mnt"], step="probing", check=False)
    if probe.returncode != 0:
        return f"loop devices cannot be mounted here: {probe.stderr.strip()}"
    tool("umount", folder / "mnt")
    return ""


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers; the upper one changes a file of the lower one and adds one."""
    need("mksquashfs", "unsquashfs")
    made = []
    for name, files in {
        "node": {"etc/hostname": "base\n", "usr/lib/big": "x" * MIB},
        "node.site": {"etc/hostname": "site\n", "etc/builder/site": "yes\n"},
    }.items():
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        made.append(squash(tmp_path / name, tmp_path / f"{name}.squashfs"))
    return made[0], made[1]
