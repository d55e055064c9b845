"""Dask: a scheduler on the head, a worker on every node, for work that is no language model.

Facts: distributed's cli/dask_scheduler.py, cli/dask_worker.py, http/scheduler/json.py. Measured: docs/ray-dask.md.
Whoever reaches the scheduler runs what he likes as the workers' user, so it is open to the cluster's subnet only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from builder.engines.kind import Files, Finding, Kind, Minimum, Part, Port, Read, Wheels
from builder.engines.trial import Look, Request, Trial, Verdict
from builder.gpu import driver_libraries
from builder.spec import types as t
from builder.spec.engine import Engine

if TYPE_CHECKING:
    from builder.spec.model import Cluster

PREFIX = "/opt/dask"
PYTHON = "3.13"
# distributed is the scheduler and the workers; bokeh its dashboard; numpy what most tasks hand around.
OWN = ("distributed>=2026.8", "bokeh>=3.1", "numpy")
MIB = 1 << 20
MEMORY = 160 * MIB  # measured at rest: 65 MiB the worker, 90 MiB the scheduler


class Dask(Engine):
    """Dask: a scheduler on the head, a worker on every node."""

    name: Literal["dask"] = Field("dask", description="Dask.", examples=["dask"])
    head: t.Label | None = Field(
        None, description="The node with the scheduler. Default: the first.", examples=["node1"]
    )
    packages: tuple[t.Requirement, ...] = Field(
        (),
        description="Python packages for the tasks, beyond Dask, its dashboard and numpy. The lock pins versions.",
        examples=[["pandas", "scikit-learn>=1.7"]],
    )
    threads: t.Layers | None = Field(
        None, description="Tasks at a time, on each node. Default: its processors.", examples=[8]
    )
    port: t.OnePort = Field(8786, description="Port of the scheduler, on the head.", examples=[8786])
    worker_port: t.OnePort = Field(8788, description="Port of the workers.", examples=[8788])
    dashboard_port: t.OnePort = Field(8787, description="Port of the dashboard, on the head.", examples=[8787])
    clients: t.Source = Field(
        "cluster",
        description="Who may see the dashboard, beside the cluster: `cluster`, `any`, or a network.",
        examples=["192.168.1.0/24"],
    )


def options(cluster: Cluster) -> Dask:
    assert isinstance(cluster.engine, Dask)
    return cluster.engine


def head(cluster: Cluster) -> str:
    """The name of the head."""
    return options(cluster).head or cluster.nodes[0].name


def requirements(cluster: Cluster) -> tuple[str, ...]:
    return (*OWN, *(wanted for wanted in options(cluster).packages if wanted))


def part(cluster: Cluster) -> Part:
    return Part(
        prefix=PREFIX,
        release="trixie",
        names=("base-files", "libstdc++6", f"python{PYTHON}"),
        python=PYTHON,
        asks=requirements(cluster),
    )


def wheels(cluster: Cluster, _read: Read) -> Wheels:
    return Wheels(requirements(cluster), PYTHON)


def ports(cluster: Cluster) -> tuple[Port, ...]:
    wanted = options(cluster)
    # The nodes look at the dashboard's data as well, to see who is in.
    watchers = dict.fromkeys(("cluster", str(wanted.clients)))
    if "any" in watchers:
        watchers = {"any": None}
    return (
        Port("tcp", str(wanted.port), "cluster", "Dask scheduler"),
        Port("tcp", str(wanted.worker_port), "cluster", "Dask worker"),
        *(Port("tcp", str(wanted.dashboard_port), source, "Dask dashboard") for source in watchers),
    )


def facts(cluster: Cluster, _files: Files) -> dict[str, Any]:
    wanted, first = options(cluster), head(cluster)
    return {
        "head": first,
        "scheduler": {"address": str(cluster.node(first).address), "port": wanted.port},
        "dashboard": {"port": wanted.dashboard_port},
        "worker": {"port": wanted.worker_port, "threads": wanted.threads},
        "gpus": cluster.gpu.count if cluster.gpu else 0,
        "driver_libraries": list(driver_libraries(cluster)),
        "prefix": PREFIX,
        "units": {"head": ["dask-scheduler.service", "dask-worker.service"], "worker": ["dask-worker.service"]},
    }


def check(cluster: Cluster, _files: Files) -> tuple[Finding, ...]:
    """Mistakes of a spec that chose this engine; values that could not be read are None."""
    wanted, found = options(cluster), []
    names = [node.name for node in cluster.nodes if node and node.name]
    if wanted.head and names and wanted.head not in names:
        found.append(Finding(("engine", "head"), f"no node is called {wanted.head}", f"nodes: {', '.join(names)}"))
    for index, node in enumerate(cluster.nodes):
        if node and node.address == "dhcp":
            message = "Dask names its scheduler and workers by address, and dhcp gives none that is known before"
            found.append(Finding(("nodes", index, "address"), message, "give it a static address"))
    return tuple(found)


def try_out(cluster: Cluster) -> Trial:
    """A task on every node that returns the name of its host; the request is for who is in, by the dashboard."""
    wanted, first = options(cluster), head(cluster)
    names = [node.name for node in cluster.nodes]
    listens = dict.fromkeys(names, (wanted.worker_port,))
    return Trial(
        listens={**listens, first: (wanted.port, wanted.dashboard_port, wanted.worker_port)},
        request=Request(first, wanted.dashboard_port, "/json/identity.json", read=workers),
        looks=(Look(first, "dask-run /usr/lib/builder/dask/hostnames.py"),),
        judge=partial(judge, names),
    )


def workers(reply: bytes) -> str:
    """Who is in, by the scheduler's own list."""
    found = json.loads(reply)["workers"].values()
    return ", ".join(sorted(str(worker["name"]) for worker in found if worker["status"] == "running"))


def judge(names: Collection[str], said: Sequence[str]) -> Verdict:
    """A task was sent to each worker, and each must have run on the node of its name."""
    try:
        ran = dict(json.loads(said[0].splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return Verdict(False, "the task told no names of hosts", said[0])
    wrong = [name for name in names if ran.get(name) != name]
    if wrong:
        return Verdict(False, f"no task ran on {', '.join(wrong)}", said[0])
    return Verdict(True, f"a task ran on {', '.join(names)}")


KIND = Kind(
    options=Dask,
    part=part,
    wheels=wheels,
    formats=(),
    ports=ports,
    facts=facts,
    check=check,
    minimum=lambda _cluster, _files: Minimum(memory=MEMORY),
    trial=try_out,
    smoke=(
        ("/usr/local/bin/dask", "--version"),
        ("/usr/local/bin/python", "-c", "import distributed, bokeh, numpy"),
    ),
)
