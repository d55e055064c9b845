"""The engine layer: programs that the node's release does not have, as a small root of their own under a prefix.

The packages are only unpacked: nothing of them is configured, and the node's own packages stay untouched.
systemd enters the root with ``RootDirectory=``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder import console, engines, sandbox
from builder.cache import Cache
from builder.layers import fromsource, python, squashfs
from builder.plan import Layer, Plan
from builder.run import run

# Of no use to a program that nobody looks at from inside.
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
_POINTS = ("dev", "etc", "mnt", "proc", "run", "srv/models", "sys", "tmp", "var/lib")


def make(plan: Plan, layer: Layer, packages: Mapping[str, Path], cache: Cache) -> Path:
    """The engine layer's squashfs, from the cache if it is there. ``packages``: packages, Python packages and
    sources by sha256.

    Its programs are run once inside it. Raises BuilderError if one does not.
    """
    assert plan.lock is not None
    kind = engines.of(plan.cluster)
    wanted = kind.part(plan.cluster)
    assert wanted is not None
    made = cache.product("engine", layer.digest) / layer.file
    if made.exists():
        return made
    title = f"engine layer: {kind.name}, {len(plan.lock.engine)} packages of {wanted.release}"
    with console.step(title), cache.scratch("engine") as work, cache.make("engine", layer.digest) as part:
        root = work / "tree" / wanted.prefix.lstrip("/")
        fromsource.unpack(plan.lock.engine, packages, root)
        for name in _LEFT_OUT:
            if (root / name).exists():
                run(["rm", "-r", root / name], step="tidying the engine layer")
        for point in _POINTS:
            (root / point).mkdir(parents=True, exist_ok=True)
        if wanted.python:
            python.fill(wanted, plan.lock, root, packages, cache)
        for argv in (*kind.smoke, *wanted.smoke):
            sandbox.inside(root, argv, step=f"trying {argv[0]} of the engine layer")
        squashfs.date(work / "tree", plan.epoch)
        options = squashfs.environment(plan.epoch)
        run(squashfs.from_tree(work / "tree", part / layer.file), step=title, env=options)
    return made
