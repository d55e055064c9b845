"""exo: nodes that share one model out among themselves, without a head; one of them is the master.

Facts: exo's source at the commits in versions.py, and what was recorded of a real run (tests/data/exo). There is
no authentication anywhere in exo: whoever reaches its API can use and change everything, hence the firewall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr

from builder.engines.exo import making, models, surroundings, trial
from builder.engines.exo.versions import API_PORT, DEFAULT, VERSIONS, Gpu, Version
from builder.engines.kind import Files, Finding, Kind, Minimum, Part, Port, Read, Wheels
from builder.engines.trial import Request, Trial
from builder.gpu import DRIVER_LIBRARIES, GpuStack, stack_of
from builder.spec import types as t
from builder.spec.engine import Engine, LocalFile

if TYPE_CHECKING:
    from builder.spec.model import Cluster

MIB = 1 << 20
# Measured: what one exo with a runner takes beside the tiny model's weights, on processors.
PROGRAM = 300 * MIB
# Of a card's memory, what CUDA, cuBLAS and the desktop's leftovers take before a model has any.
_LEFT_ON_A_CARD = 0.86
LOGS = 4096 * MIB  # exo-tidy keeps event and runner logs below this


class Exo(Engine):
    """exo: the nodes find each other, and share one model out; a dashboard and an OpenAI API on every node."""

    name: Literal["exo"] = Field("exo", description="exo.", examples=["exo"])
    version: t.Word = Field(
        DEFAULT,
        description=f"Which exo, the same on all nodes: {', '.join(f'`{name}`' for name in VERSIONS)}.",
        examples=[DEFAULT],
    )
    source: t.Place | None = Field(
        None,
        description="Its git repository, a URL or a path; the version's commit is taken from it. Default: exo's "
        "own. The environment variable `EXO_SOURCE` names another one for a build.",
        examples=["../exo"],
    )
    overrides: tuple[t.Override, ...] = Field(
        (),
        description="Python packages in place of those in exo's lock: `mlx-lm==0.31.3` takes that release, "
        "`-torch` leaves it out, as text models do not need it.",
        examples=[["mlx-lm==0.31.3", "-torch"]],
    )
    master: t.Label | None = Field(
        None, description="The node that is the master while it lives. Default: the first.", examples=["node1"]
    )
    model: t.Repo | None = Field(
        None,
        description="Which model to serve, by its name on the hub; its files are one of `models`. Default: the "
        "only one there. Without any, nothing is placed.",
        examples=["mlx-community/Llama-3.2-1B-Instruct-4bit"],
    )
    card: t.LocalPath | None = Field(
        None,
        description="exo's description of `model` (a .toml as in its `resources/inference_model_cards`), for one "
        "that exo does not know.",
        examples=["models/card.toml"],
    )
    sharding: Literal["Pipeline", "Tensor"] = Field(
        "Pipeline", description="How the model is shared out.", examples=["Pipeline", "Tensor"]
    )
    min_nodes: t.Layers | None = Field(
        None, description="Place the model on at least so many nodes. Default: all.", examples=[2]
    )
    peer_port: t.OnePort | None = Field(
        None, description="TCP port of the nodes' own talk. Default: the version's.", examples=[30415]
    )
    discovery: Literal["multicast", "static"] = Field(
        "multicast",
        description="How nodes find each other: `multicast` needs a network that passes it; `static` names every "
        "node by its address as well, for one that does not. exo v1.0.71 then dials peers that it has already "
        "every 5 s, and holds an election each time, for which its API makes requests wait.",
        examples=["multicast", "static"],
    )
    clients: t.Source = Field(
        "cluster",
        description="Who may use API and dashboard: `cluster`, `any`, or a network. They have no password.",
        examples=["192.168.1.0/24"],
    )
    namespace_file: t.LocalPath | None = Field(
        None,
        description="File with the cluster's own secret, from which exo makes its pre-shared key; outside of any "
        "repository. Default: `~/.config/cluster-image-builder/NAME.namespace`.",
        examples=["~/secrets/lab.namespace"],
    )
    namespace: SecretStr | None = Field(None, exclude=True, repr=False)
    card_text: str | None = Field(None, exclude=True, repr=False)

    def files(self, cluster: str) -> tuple[LocalFile, ...]:
        found = []
        version = VERSIONS.get(self.version or DEFAULT)
        if version is not None and version.secret:
            path = self.namespace_file or f"~/.config/cluster-image-builder/{cluster}.namespace"
            hint = "`builder secrets CLUSTER` makes it, once; every later build of this cluster needs the same"
            found.append(LocalFile("namespace", "namespace_file", path, hint, secret=True))
        if self.card:
            hint = "copy one of exo's resources/inference_model_cards, and change it"
            found.append(LocalFile("card_text", "card", self.card, hint))
        return tuple(found)


def options(cluster: Cluster) -> Exo:
    assert isinstance(cluster.engine, Exo)
    return cluster.engine


def version_of(cluster: Cluster) -> Version:
    """The version, or the default one for a draft whose own is not in the table: :func:`check` says so."""
    return VERSIONS.get(options(cluster).version or DEFAULT, VERSIONS[DEFAULT])


def master(cluster: Cluster) -> str:
    return options(cluster).master or cluster.nodes[0].name


def peer_port(cluster: Cluster) -> int:
    return options(cluster).peer_port or version_of(cluster).default_port


def gpu_of(cluster: Cluster) -> Gpu | None:
    """What of the version serves the cluster's GPUs; None without any."""
    stack = _stack(cluster)
    return version_of(cluster).gpu.get(str(stack.cuda)) if stack else None


def _stack(cluster: Cluster) -> GpuStack | None:
    return stack_of(cluster)


def part(cluster: Cluster) -> Part:
    wanted = options(cluster)
    overrides = tuple(text for text in wanted.overrides if text)
    return making.part(version_of(cluster), wanted.source, overrides, gpu_of(cluster))


def wheels(cluster: Cluster, read: Read) -> Wheels:
    return making.wheels(version_of(cluster), options(cluster).overrides, gpu_of(cluster), read)


def ports(cluster: Cluster) -> tuple[Port, ...]:
    return version_of(cluster).ports(peer_port(cluster), str(options(cluster).clients))


def facts(cluster: Cluster, files: Files) -> dict[str, Any]:
    wanted, version, first = options(cluster), version_of(cluster), master(cluster)
    gpu, port = gpu_of(cluster), peer_port(cluster)
    how, name = version.namespace
    flags: dict[str, list[str]] = {}
    for node in cluster.nodes:
        own = [version.peer_flag, str(port), *(["--force-master"] if node.name == first else [])]
        others = [f"/ip4/{other.address}/tcp/{port}" for other in cluster.nodes if other.name != node.name]
        static = wanted.discovery == "static" and version.bootstrap and others
        own += [str(version.bootstrap), ",".join(others)] if static else []
        own += [name, cluster.name] if how == "flag" else []
        flags[node.name] = own
    return {
        "version": version.name,
        "transport": version.transport,
        "master": first,
        "api": {"port": API_PORT},
        "peers": {"port": port},
        "multicast": _multicast(version) if wanted.discovery == "multicast" else None,
        "model": models.served(cluster.models, wanted.model),
        "sharding": wanted.sharding,
        "min_nodes": wanted.min_nodes or len(cluster.nodes),
        "flags": flags,
        "memory_mib": {node.name: memory(cluster, node.memory) for node in cluster.nodes},
        "namespace_variable": name if how == "variable" else None,
        "gpu": gpu.extra if gpu else None,
        "environment": surroundings.environment(gpu),
        "prefix": making.PREFIX,
        "units": ["exo.service"],
        "driver_libraries": list(DRIVER_LIBRARIES),
        "logs_mib": LOGS // MIB,
    }


def _multicast(version: Version) -> dict[str, Any]:
    instead = "engine.discovery: static" if version.bootstrap else ""
    return {"group": version.group, "port": int(version.discovery.ports), "instead": instead}


def memory(cluster: Cluster, given: int | None) -> int | None:
    """MiB that a node lets exo plan with: what the spec says of it, else its cards', else all its RAM (None)."""
    if given:
        return given // MIB
    stack = _stack(cluster)
    return int(stack.vram_mib * _LEFT_ON_A_CARD) if stack else None


def check(cluster: Cluster, files: Files) -> tuple[Finding, ...]:
    """Mistakes of a spec that chose this engine; values that could not be read are None."""
    wanted, found = options(cluster), []
    if wanted.version and wanted.version not in VERSIONS:
        hint = f"known: {', '.join(VERSIONS)}; another one needs an entry in builder/engines/exo/versions.py: "
        hint += "commit, transport, ports, namespace, Rust crate, extras and their oldest driver"
        found.append(Finding(("engine", "version"), f"exo {wanted.version} is not in the table", hint))
    names = [node.name for node in cluster.nodes if node and node.name]
    if wanted.master and names and wanted.master not in names:
        message = f"no node is called {wanted.master}"
        found.append(
            Finding(("engine", "master"), message, f"nodes: {', '.join(names)}; exactly one is the master")
        )
    if wanted.min_nodes and wanted.min_nodes > len(cluster.nodes):
        message = f"is more than the {len(cluster.nodes)} nodes that there are"
        found.append(Finding(("engine", "min_nodes"), message))
    if wanted.discovery == "static" and not version_of(cluster).bootstrap:
        message = f"exo {wanted.version} finds its peers by multicast alone"
        found.append(Finding(("engine", "discovery"), message, "leave it out"))
    for index, node in enumerate(cluster.nodes):
        if node and node.address == "dhcp":
            message = "builder-join asks the other nodes by address, and dhcp gives none that is known before"
            found.append(Finding(("nodes", index, "address"), message, "give it a static address"))
    found += models.complaints(cluster.models, wanted.model, wanted.card_text, version_of(cluster).name, files)
    found += _cuda(cluster)
    return tuple(found)


def _cuda(cluster: Cluster) -> list[Finding]:
    """An extra that the driver cannot serve, or that this exo does not have."""
    stack, version = _stack(cluster), version_of(cluster)
    if stack is None:
        return []
    gpu = version.gpu.get(str(stack.cuda))
    if gpu is None:
        message = f"exo {version.name} has nothing for {stack.cuda or 'a driver without CUDA'}"
        return [Finding(("gpu", "cuda"), message, f"it has: {', '.join(version.gpu)}")]
    if _number(stack.version) < _number(gpu.driver):
        message = f"exo's {gpu.extra} needs driver {gpu.driver}, and the nodes get {stack.version}"
        older = [name for name, one in version.gpu.items() if _number(one.driver) <= _number(stack.version)]
        newer = f'a newer driver: gpu.driver: "{gpu.driver.partition(".")[0]}" or later'
        hint = f'write gpu.cuda: "{older[-1].removeprefix("cuda")}", or take {newer}' if older else f"take {newer}"
        return [Finding(("gpu", "driver"), message, hint)]
    return []


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in str(version).split(".") if part.isdigit())


def minimum(cluster: Cluster, files: Files) -> Minimum:
    return Minimum(
        weights=models.weights(cluster.models, options(cluster).model, files), memory=PROGRAM, disk=LOGS
    )


def try_out(cluster: Cluster) -> Trial | None:
    model = models.served(cluster.models, options(cluster).model)
    if model is None:
        return None
    nodes = tuple(node.name for node in cluster.nodes)
    return trial.trial(master(cluster), nodes, API_PORT, peer_port(cluster), model)


def chat(cluster: Cluster, text: str) -> Request | None:
    model = models.served(cluster.models, options(cluster).model)
    return trial.completion(master(cluster), API_PORT, model, text, tokens=512) if model else None


def advice(cluster: Cluster) -> tuple[str, ...]:
    """Which of exo's own models fit the nodes' memory together, once that is known of every node."""
    rooms = [memory(cluster, node.memory) for node in cluster.nodes]
    if not all(rooms):
        return ()
    room = sum(filter(None, rooms)) * MIB
    version = version_of(cluster).name
    fit, all_of = models.fitting(version, room), len(models.known(version))
    shown = ", ".join(f"{name} ({size / (1 << 30):.1f}G)" for name, size in fit[:5])
    largest = f"; the largest: {shown}" if shown else ""
    return (f"{len(fit)} of exo's {all_of} models fit {room / (1 << 30):.1f}G{largest}",) if all_of else ()


KIND = Kind(
    options=Exo,
    part=part,
    wheels=wheels,
    formats=(".safetensors",),
    ports=ports,
    facts=facts,
    check=check,
    minimum=minimum,
    trial=try_out,
    chat=chat,
    smoke=trial.SMOKE,
    advice=advice,
    on_gpu=surroundings.on_gpu,
)
