"""The host: which tools a build needs, why, in which package they are, and whether they are here.

Standard library only, so that ``make setup`` can use it before there is a Python environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Tool:
    """``probe`` is a program, or an absolute path; ``minimum`` a major version where an old one will not do."""

    probe: str
    package: str
    why: str
    minimum: int = 0


# The keyrings of other distributions are not here: sources/apt.py asks for the one that a spec needs.
BUILD = (
    Tool("apt-get", "apt", "decides which packages a node gets"),
    Tool("apt-ftparchive", "apt-utils", "makes the fetched packages an archive"),
    Tool(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "proves that they are Debian's",
    ),
    Tool("mmdebstrap", "mmdebstrap", "makes the base layer from them"),
    Tool("newuidmap", "uidmap", "lets a plain user do so"),
    Tool("mksquashfs", "squashfs-tools", "packs the layers"),
    Tool("bwrap", "bubblewrap", "runs the node's own programs to check and prepare its files"),
    Tool("zstd", "zstd", "packs the installer"),
    Tool("mformat", "mtools", "makes the medium's EFI partition"),
    Tool("xorriso", "xorriso", "reads and writes the ISO"),
    Tool("gpgv", "gpgv", "proves that Ubuntu's ISO is Ubuntu's"),
    Tool("openssl", "openssl", "signs what nodes install over the network"),
)
SERVE = (
    Tool("dnsmasq", "dnsmasq-base", "tells nodes what to boot over the network"),
    Tool("nginx", "nginx-light", "serves them the payload"),
    Tool("ip", "iproute2", "finds the cluster's interface"),
    Tool("setpriv", "util-linux", "ends the servers with the builder"),
)
TEST = (
    Tool("mkfs.vfat", "dosfstools", "lets the tests install into an image"),
    Tool("chromium-headless-shell", "chromium-headless-shell", "looks at the page that `builder serve` shows"),
    Tool("skopeo", "skopeo", "makes container images as others make them"),
)
VERIFY = (
    Tool("qemu-system-x86_64", "qemu-system-x86", "boots media in the boot test", minimum=10),
    Tool("qemu-img", "qemu-utils", "makes its disks"),
    Tool("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf", "is its UEFI firmware"),
    Tool("ssh", "openssh-client", "looks into the booted node"),
    Tool("dumpe2fs", "e2fsprogs", "proves that the installed file system is clean"),
    Tool("sfdisk", "fdisk", "reads the installed disk's partitions"),
    Tool("nft", "nftables", "loads a node's firewall where the tests try it"),
)


@dataclass(frozen=True)
class Finding:
    """What was found of a tool; ``problem`` is empty when it will do."""

    tool: Tool
    problem: str


def inspect(tools: Iterable[Tool] = (*BUILD, *VERIFY)) -> list[Finding]:
    """Look for every tool."""
    return [Finding(tool, problem(tool)) for tool in tools]


def problem(tool: Tool) -> str:
    """Why a tool will not do, or an empty string."""
    if tool.probe.startswith("/"):
        return "" if Path(tool.probe).exists() else "missing"
    path = shutil.which(tool.probe, path=PATH)
    if path is None:
        return "missing"
    if tool.minimum:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"version (\d+)", said)
        if found and int(found[1]) < tool.minimum:
            return f"version {found[1]}, {tool.minimum} or later is wanted"
    return ""


def install(findings: Sequence[Finding], say: object = print) -> int:
    """Install what is missing with apt, as root or by sudo, saying what and why. Returns apt's exit status."""
    assert callable(say)
    wanted = [finding for finding in findings if finding.problem]
    if not wanted:
        say("every tool is there")
        return 0
    say("installing with apt:")
    for finding in wanted:
        say(f"  {finding.tool.package:24} {finding.tool.probe} {finding.tool.why} ({finding.problem})")
    release = _codename()
    backport = [f.tool.package for f in wanted if f.tool.minimum] if release == "bookworm" else []
    plain = [finding.tool.package for finding in wanted if finding.tool.package not in backport]
    if backport:
        say(f"  from {release}-backports: {' '.join(backport)}; its own is four times slower without KVM")
        _enable_backports(release)
    status = _as_root(["apt-get", "update", "-q"])
    # A list of some other vendor may be out of reach; what matters is whether the packages can be installed.
    if status != 0:
        say("apt-get update reported errors; going on with the lists that it has")
    options = ["-q", "-y", "--no-install-recommends"]
    if backport:
        extra = ["qemu-utils", "ovmf"]
        plain = [package for package in plain if package not in extra]
        status = _as_root(["apt-get", "install", *options, "-t", f"{release}-backports", *backport, *extra])
        if status != 0:
            return status
    return _as_root(["apt-get", "install", *options, *plain]) if plain else 0


def _codename() -> str:
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    found = re.search(r"^VERSION_CODENAME=(\w+)", text, re.MULTILINE)
    return found[1] if found else ""


def _enable_backports(release: str) -> None:
    """Add the backports suite of the mirror that this host already uses."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in lists if path.suffix in (".list", ".sources") and path.is_file())
    if f"{release}-backports" in text:
        return
    found = re.search(rf"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{release}\s", text, re.MULTILINE) or re.search(
        rf"^URIs:\s*(\S+)\s*\n(?:.*\n)*?Suites:.*\b{release}\b", text, re.MULTILINE
    )
    if not found:
        return
    line = f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {found[1]} {release}-backports main\n"
    target = f"/etc/apt/sources.list.d/{release}-backports.list"
    subprocess.run([*_sudo(), "tee", target], input=line, text=True, stdout=subprocess.DEVNULL, check=True)


def _sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _as_root(argv: list[str]) -> int:
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    # apt's own chatter belongs to the log of what is done, not to the answer on standard output.
    return subprocess.run([*_sudo(), *environment, *argv], stdout=sys.stderr, check=False).returncode
