"""Every rendered file is read, before it is put on a medium, by the program that will read it on the node.

The programs are the node's own, run inside its layers (:mod:`builder.sandbox`). A check that passed is
remembered by what it read, so a change to one node checks that node again and not the others.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from builder import console, render, sandbox
from builder.cache import Cache
from builder.canonical import code_digest, digest
from builder.errors import BuilderError
from builder.plan import Plan

DOCKER = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class Check:
    """Run ``argv`` in the node's root; ``files`` (path → content) are under /mnt/seed for it to read.

    ``of_site``: it reads the site layer's files, so it must run again when they change.
    """

    what: str
    argv: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    of_site: bool = False


def require_sound(plan: Plan, base: Path, cache: Cache) -> None:
    """Run every check that has not passed before. Raises BuilderError with the first that fails."""
    todo = {key: check for check in wanted(plan) if not cache.product("checks", key := _key(check, plan)).exists()}
    if not todo:
        return
    with (
        console.step(f"{len(todo)} checks inside the layers"),
        tempfile.TemporaryDirectory(prefix="builder-checks-") as folder,
        ThreadPoolExecutor() as pool,
    ):
        root = sandbox.tree(base, plan.base.digest, cache)
        site = Path(folder) / "site"
        for file in (*plan.site, *_stand_ins(plan.site)):
            render.write(file, site)
        seeds = {key: Path(folder) / key for key in todo}
        futures = {key: pool.submit(_run, check, root, site, seeds[key]) for key, check in todo.items()}
        for key, future in futures.items():
            future.result()
            with cache.make("checks", key):
                pass


def wanted(plan: Plan) -> Iterator[Check]:
    """Every check of a plan. Pure."""
    yield Check("base: packages are all configured", ("sh", "-c", 'test -z "$(dpkg --audit)"'))
    yield Check("site: /etc/nftables.conf", ("nft", "--check", "--file", "/etc/nftables.conf"), of_site=True)
    yield Check("site: /etc/ssh/sshd_config", ("/usr/sbin/sshd", "-G"), of_site=True)
    yield Check("site: /etc/default/grub", ("sh", "-eu", "/etc/default/grub"), of_site=True)
    if plan.cluster.base_iso:
        yield Check("site: /curtin/curtin-hooks", ("sh", "-n", "/curtin/curtin-hooks"), of_site=True)
    # A drop-in is read with its unit.
    units = sorted(
        file.path
        for file in plan.site
        if re.fullmatch("/etc/systemd/system/[^/]+", file.path) and file.link is None
    )
    yield Check("site: systemd units", ("systemd-analyze", "verify", "--man=no", *units), of_site=True)
    if any(file.path == DOCKER for file in plan.site):
        yield Check(f"site: {DOCKER}", ("dockerd", "--validate", "--config-file", DOCKER), of_site=True)
    for node, files in plan.seeds.items():
        for kind, name in (("cloud-config", "user-data"), ("network-config", "network-config")):
            yield Check(
                f"seed of {node}: {name}",
                ("cloud-init", "schema", "--schema-type", kind, "--config-file", "/mnt/seed/data"),
                (("data", files[name]),),
            )
        # The seed's network-config is netplan's format without netplan's outermost key.
        netplan = render.dump_yaml({"network": yaml.safe_load(files["network-config"])})
        yield Check(
            f"seed of {node}: network-config as netplan",
            ("netplan", "generate", "--root-dir", "/mnt/seed"),
            (("etc/netplan/50-cloud-init.yaml", netplan),),
        )


def _stand_ins(files: Sequence[render.File]) -> Iterator[render.File]:
    """Programs that a unit with a root of its own starts: systemd-analyze looks for them in the node's root.

    That they are there and run, the layer that brings them has tried for itself.
    """
    for file in files:
        text = file.content.decode() if file.path.endswith(".service") else ""
        if re.search("^RootDirectory=", text, re.MULTILINE):
            for program in re.findall(r"^ExecStart=(/\S+)", text, re.MULTILINE):
                yield render.File(program, 0o755)


def _key(check: Check, plan: Plan) -> str:
    """What a passed check depends on; the name of the node is not part of it, so equal seeds are read once."""
    under = [layer.digest for layer in (plan.layers if check.of_site else [plan.base])]
    files = [[path, hashlib.sha256(content).hexdigest()] for path, content in check.files]
    return digest([code_digest("checks.py", "sandbox.py"), under, check.argv, files])


def _run(check: Check, root: Path, site: Path, seed: Path) -> None:
    seed.mkdir()
    for name, content in check.files:
        path = seed / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)  # netplan refuses to be read by others
    done = sandbox.inside(
        root,
        check.argv,
        step=check.what,
        over=site if check.of_site else None,
        binds={"seed": seed},
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip() or f"{check.argv[0]} exited {done.returncode}"
        raise BuilderError(
            f"{check.what} does not pass its own program's check ({check.argv[0]})\n"
            + "\n".join(f"  | {line}" for line in said.splitlines()[-15:]),
            hint="nothing was put on a medium; `builder plan CLUSTER --file NODE:PATH` prints what was rendered",
        )
