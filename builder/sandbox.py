"""Programs of the target, run inside its own root: no network, no rights on the host, nothing left behind.

The root is the base layer, unpacked once into the cache and shown read-only; a folder can be laid over it, as
the site layer will be on the node. bubblewrap and a user namespace do it, as root or as any user: the files
are then whoever's unpacked them, and the sandbox shows them as root's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from builder.cache import Cache
from builder.errors import BuilderError
from builder.run import Completed, run

# Half of a node's files; no program that we run inside reads them, and unpacking them takes time.
_NOT_NEEDED = (
    *("usr/lib/modules", "usr/src"),
    *(f"usr/share/{name}" for name in ("doc", "i18n", "info", "locale", "man", "zoneinfo")),
)
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")
_OVERLAY = 'mount -t overlay overlay -o "lowerdir=$1" "$2"; shift 2; exec "$@"'


def tree(base: Path, digest: str, cache: Cache) -> Path:
    """The base layer as a folder; ``digest`` names the layer. Raises BuilderError if it cannot be unpacked."""
    folder = cache.product("tree", digest)
    if not folder.exists():
        with cache.make("tree", digest) as part:
            unsquash(base, part / "root")
    return folder / "root"


def unsquash(layer: Path, root: Path) -> None:
    """Unpack what programs need of a layer."""
    argv: list[str | Path] = [
        "unsquashfs",
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-dest",
        root,
        "-excludes",
        layer,
        *_NOT_NEEDED,
    ]
    done = run(argv, step=f"unpacking {layer.name}", check=False)
    # 2: something could not be set; to a plain user that is the ownership and the device nodes of /dev.
    if done.returncode not in (0, 2):
        raise BuilderError(f"unpacking {layer.name} failed\n  | {done.stderr.strip()}")


def inside(
    root: Path,
    argv: Sequence[str],
    *,
    step: str,
    over: Path | None = None,
    binds: Mapping[str, Path] | None = None,
    check: bool = True,
    at: str = "/",
    env: Mapping[str, str] | None = None,
    network: bool = False,
) -> Completed:
    """Run a program of ``root``, with the folder ``over`` laid over it.

    ``binds``: name → folder of this machine, which appears writable as ``/mnt/<name>``. ``at``: the folder it runs
    in. With ``network`` it has this machine's, and the user's settings for package registries; that is for roots
    that build something, never for a node's.
    """
    as_root = os.geteuid() == 0
    if over is None:
        inner = bwrap_argv(root, argv, binds or {}, as_root=as_root, at=at, env=env, network=network)
        return run(inner, step=step, check=check)
    with tempfile.TemporaryDirectory(prefix="builder-overlay-") as mount:
        namespaces = ["--mount"] if as_root else ["--user", "--map-root-user", "--mount"]
        command: list[str | Path] = ["unshare", *namespaces, "--", "sh", "-ec", _OVERLAY, "sh"]
        command += [f"{over}:{root}", mount, *bwrap_argv(Path(mount), argv, binds or {}, as_root=True)]
        return run(command, step=step, check=check)


def mount_points(root: Path) -> None:
    """Make what :func:`inside` mounts something on, in a root that is made of packages alone."""
    for name in ("dev", "mnt", "proc", "run", "tmp", "etc/ssl"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _NETWORK_FILES:
        (root / name.lstrip("/")).touch()


def bwrap_argv(
    root: Path,
    argv: Sequence[str],
    binds: Mapping[str, Path],
    *,
    as_root: bool,
    at: str = "/",
    env: Mapping[str, str] | None = None,
    network: bool = False,
) -> list[str | Path]:
    """The whole command line. Pure. Root needs no user namespace, which containers often forbid."""
    return [
        *("bwrap", "--die-with-parent", "--new-session"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if network else ("--unshare-net",)),
        *(() if as_root else ("--unshare-user", "--uid", "0", "--gid", "0")),
        *("--cap-add", "CAP_NET_ADMIN"),  # nft --check asks the kernel for the (empty) ruleset
        *("--ro-bind", root, "/"),
        *(_outside() if network else ()),
        *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/mnt"),
        *(word for name, folder in binds.items() for word in ("--bind", folder, f"/mnt/{name}")),
        *(_registries() if network else ()),
        *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        *("--setenv", "HOME", "/root", "--setenv", "LANG", "C.UTF-8"),
        *(_passed_on() if network else ()),
        *(word for name, value in (env or {}).items() for word in ("--setenv", name, value)),
        *("--chdir", at, "--"),
        *argv,
    ]


def _outside() -> Iterator[str]:
    """How names are looked up here, and whose certificates this machine trusts."""
    for name in (*_NETWORK_FILES, "/etc/ssl"):
        yield from ("--ro-bind-try", name, name)


def _registries() -> Iterator[str]:
    """The user's settings of cargo and npm, which may name another registry; the sandbox's home is /mnt/home."""
    for name in (".cargo/config.toml", ".npmrc"):
        yield from ("--ro-bind-try", str(Path.home() / name), f"/mnt/home/{name}")


def _passed_on() -> Iterator[str]:
    yield from ("--setenv", "NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/ca-certificates.crt")
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if name in os.environ:
            yield from ("--setenv", name, os.environ[name])
