"""Ray: tasks and actors on every node, and if asked for, one model served over all of them by vLLM.

Facts: Ray's python/ray/scripts/scripts.py (``ray start``), its documented ports (ray-core/configure.html), and
what docs/ray-dask.md has as measured. Without a token, whoever reaches a port of Ray's runs what he likes as its
user. So every port is open to the cluster's subnet only, and the dashboard, which takes jobs as well, to those
that the spec names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from builder.engines.kind import Files, Finding, Kind, Minimum, Part, Port, Read, Wheels
from builder.engines.ray import vllm
from builder.engines.ray.vllm import Vllm
from builder.engines.trial import Look, Request, Trial, Verdict
from builder.gpu import driver_libraries
from builder.spec import types as t
from builder.spec.engine import Engine

if TYPE_CHECKING:
    from builder.spec.model import Cluster

PREFIX = "/opt/ray"
PYTHON = "3.13"
OWN = ("ray[default]>=2.60",)  # with the dashboard
MIB = 1 << 20
# Measured at rest: 630 MiB the head with its dashboard, 215 MiB other nodes; tasks and object store come on top.
MEMORY = 700 * MIB
# Beside the head's own port: what every node listens on, each one further.
DOORS = (
    ("object_manager", "Ray object manager"),
    ("node_manager", "Ray node manager"),
    ("runtime_env_agent", "Ray runtime environments"),
    ("dashboard_agent_grpc", "Ray agent"),
    ("dashboard_agent_listen", "Ray agent, HTTP"),
    ("metrics_export", "Ray metrics"),
    ("ray_client_server", "Ray client"),
)


class Ray(Engine):
    """Ray: a head and workers that run Python's tasks on every node."""

    name: Literal["ray"] = Field("ray", description="Ray.", examples=["ray"])
    head: t.Label | None = Field(None, description="The head. Default: the first node.", examples=["node1"])
    packages: tuple[t.Requirement, ...] = Field(
        (),
        description="Python packages for the tasks, beyond Ray. The lock pins versions.",
        examples=[["numpy", "ray[data]"]],
    )
    port: t.OnePort = Field(
        6379, description="Port of the head; the seven after it are every node's.", examples=[6379]
    )
    worker_ports: t.PortRange = Field(
        "11000-11999", description="Ports of the processes that run tasks.", examples=["11000-11999"]
    )
    dashboard_port: t.OnePort = Field(8265, description="Port of the dashboard, on the head.", examples=[8265])
    clients: t.Source = Field(
        "cluster",
        description="Who may use the dashboard, and vLLM's API, beside the cluster: `cluster`, `any`, or a "
        "network. The dashboard takes jobs: whoever may use it can run anything as Ray's user.",
        examples=["192.168.1.0/24"],
    )
    vllm: Vllm | None = Field(None, description="Serves one model over all nodes, on their GPUs.")


def options(cluster: Cluster) -> Ray:
    assert isinstance(cluster.engine, Ray)
    return cluster.engine


def head(cluster: Cluster) -> str:
    """The name of the head."""
    return options(cluster).head or cluster.nodes[0].name


def requirements(cluster: Cluster) -> tuple[str, ...]:
    wanted = options(cluster)
    return (*OWN, *(vllm.OWN if wanted.vllm else ()), *(name for name in wanted.packages if name))


def part(cluster: Cluster) -> Part:
    more = vllm.PACKAGES if options(cluster).vllm else ()
    return Part(
        prefix=PREFIX,
        release="trixie",
        # Ray starts its workers by bash.
        names=("base-files", "bash", "dash", "libstdc++6", f"python{PYTHON}", *more),
        python=PYTHON,
        asks=requirements(cluster),
    )


def wheels(cluster: Cluster, _read: Read) -> Wheels:
    return Wheels(requirements(cluster), PYTHON)


def ports(cluster: Cluster) -> tuple[Port, ...]:
    wanted = options(cluster)
    doors = (Port("tcp", str(wanted.port + number), "cluster", why) for number, (_, why) in enumerate(DOORS, 1))
    return (
        Port("tcp", str(wanted.port), "cluster", "Ray head"),
        *doors,
        Port("tcp", wanted.worker_ports, "cluster", "Ray workers"),
        # The nodes look at the dashboard's data as well, to see who is in.
        *(Port("tcp", str(wanted.dashboard_port), source, "Ray dashboard") for source in _watchers(wanted)),
        *(vllm.ports(wanted.vllm, _watchers(wanted)) if wanted.vllm else ()),
    )


def _watchers(wanted: Ray) -> tuple[str, ...]:
    return ("any",) if wanted.clients == "any" else tuple(dict.fromkeys(("cluster", str(wanted.clients))))


def facts(cluster: Cluster, _files: Files) -> dict[str, Any]:
    wanted, first = options(cluster), head(cluster)
    low, _, high = wanted.worker_ports.partition("-")
    return {
        "head": first,
        "address": str(cluster.node(first).address),
        "port": wanted.port,
        "ports": {name: wanted.port + number for number, (name, _) in enumerate(DOORS, 1)},
        "workers": {"first": int(low), "last": int(high or low)},
        "dashboard": {"port": wanted.dashboard_port},
        "prefix": PREFIX,
        "gpus": vllm.gpus(cluster),
        "driver_libraries": list(driver_libraries(cluster)),
        "vllm": vllm.facts(wanted.vllm, cluster) if wanted.vllm else None,
        "units": {
            "head": ["ray.service", *(["ray-vllm.service"] if wanted.vllm else [])],
            "worker": ["ray.service"],
        },
    }


def check(cluster: Cluster, files: Files) -> tuple[Finding, ...]:
    """Mistakes of a spec that chose this engine; values that could not be read are None."""
    wanted, found = options(cluster), []
    names = [node.name for node in cluster.nodes if node and node.name]
    if wanted.head and names and wanted.head not in names:
        found.append(Finding(("engine", "head"), f"no node is called {wanted.head}", f"nodes: {', '.join(names)}"))
    if wanted.port and wanted.port + len(DOORS) > 65535:
        found.append(Finding(("engine", "port"), "leaves no seven ports after it", "take a lower one"))
    for index, node in enumerate(cluster.nodes):
        if node and node.address == "dhcp":
            message = "Ray names its nodes by address, and dhcp gives none that is known before"
            found.append(Finding(("nodes", index, "address"), message, "give it a static address"))
    if wanted.vllm:
        found += vllm.check(wanted.vllm, cluster, files)
    return tuple(found)


def minimum(cluster: Cluster, files: Files) -> Minimum:
    wanted = options(cluster).vllm
    return Minimum(weights=vllm.weights(wanted, files) if wanted else (), memory=MEMORY)


def try_out(cluster: Cluster) -> Trial:
    """A task on every node that returns the name of its host; the request is for who is in, by the dashboard."""
    wanted, first = options(cluster), head(cluster)
    known = facts(cluster, None)["ports"]
    listens = {node.name: (known["node_manager"], known["object_manager"]) for node in cluster.nodes}
    return Trial(
        listens={**listens, first: (wanted.port, wanted.dashboard_port, *listens[first])},
        request=Request(first, wanted.dashboard_port, ALIVE, read=alive),
        looks=(Look(first, "ray-run /usr/lib/builder/ray/hostnames.py"),),
        judge=partial(judge, {str(node.address): node.name for node in cluster.nodes}),
    )


# The dashboard's list of nodes, without those that are gone.
ALIVE = "/api/v0/nodes?limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


def alive(reply: bytes) -> str:
    """Who is in, by the head's own list: addresses."""
    found = json.loads(reply)["data"]["result"]["result"]
    return ", ".join(sorted(str(node["node_ip"]) for node in found if node["state"] == "ALIVE"))


def judge(names: dict[str, str], said: Sequence[str]) -> Verdict:
    """A task was sent to each node (address → name), and each must have run on the host of that name."""
    try:
        ran: dict[str, str] = dict(json.loads(said[0].splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return Verdict(False, "the task told no names of hosts", said[0])
    wrong: Collection[str] = [name for address, name in names.items() if ran.get(address) != name]
    if wrong:
        return Verdict(False, f"no task ran on {', '.join(wrong)}", said[0])
    return Verdict(True, f"a task ran on {', '.join(names.values())}")


def chat(cluster: Cluster, text: str) -> Request | None:
    wanted = options(cluster).vllm
    return vllm.chat(wanted, head(cluster), text) if wanted else None


def on_gpu(cluster: Cluster) -> str | None:
    """With vLLM there is torch to ask; without it nothing of ours computes on a GPU."""
    return vllm.ON_GPU if options(cluster).vllm else None


KIND = Kind(
    options=Ray,
    part=part,
    wheels=wheels,
    formats=vllm.FORMATS,
    ports=ports,
    facts=facts,
    check=check,
    minimum=minimum,
    trial=try_out,
    chat=chat,
    on_gpu=on_gpu,
    smoke=(
        ("/usr/local/bin/ray", "--version"),
        ("/usr/local/bin/python", "-c", "import ray, ray.dashboard.dashboard, ray._private.worker"),
    ),
)
