"""llama.cpp with its RPC backend: one head that serves an OpenAI API, workers that lend it their memory.

Facts: llama.cpp's tools/rpc/README.md (plain TCP, no authentication: for a trusted network only, hence the
firewall's cluster subnet) and shared measurements in docs/llamacpp.md. Debian packages all of it from forky on;
on an older release the programs are carried in a root of their own, which systemd enters by RootDirectory=.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from builder.engines.kind import Files, Finding, Kind, Minimum, Part, Port
from builder.engines.llamacpp import cuda, trial
from builder.engines.llamacpp import model as gguf
from builder.engines.trial import Request, Trial
from builder.engines.trial import chat as completion
from builder.spec import types as t
from builder.spec.engine import Engine

if TYPE_CHECKING:
    from builder.spec.model import Cluster

PREFIX = "/opt/llamacpp"
LIBEXEC = "/usr/libexec/x86_64-linux-gnu/llama/bin"

MIB = 1 << 20
# Measured: what a worker takes with the tests' tiny model, beside its weights. No model runs with less.
PROGRAM = 10 * MIB
# Estimates, as the model's architecture is not known before it is loaded. A node's buffers are about those of one
# batch: 512 tokens over a vocabulary of 128,000, 4 bytes each. A token of context is what it takes in Llama 3 8B
# (32 layers, keys and values of 8 heads of 128 numbers, 2 bytes each): a 1B model takes a quarter of that.
BUFFERS = 256 * MIB
TOKEN = 128 << 10


class LlamaCpp(Engine):
    """llama.cpp: the head serves the API, the other nodes are its RPC workers."""

    name: Literal["llamacpp"] = Field("llamacpp", description="llama.cpp.", examples=["llamacpp"])
    head: t.Label | None = Field(
        None, description="The node that serves the API. Default: the first.", examples=["node1"]
    )
    model: t.ModelPath | None = Field(
        None,
        description="Which of `models` to serve: a file, or one in a repository's folder; of a model in several "
        "files, the first. Default: the only GGUF.",
        examples=["tiny.gguf", "org--name/x-Q4_K_M-00001-of-00002.gguf"],
    )
    context: t.Context = Field(2048, description="Context length in tokens.", examples=[8192])
    gpu_layers: t.Layers = Field(
        999,
        description="How many layers, counting the output as one, go to GPUs and workers; what is beyond the "
        "model's number means all. Fewer leave the first ones to the head's processors.",
        examples=[999, 5],
    )
    threads: t.Layers | None = Field(
        None, description="Threads of the head. Default: its processors.", examples=[1]
    )
    port: t.OnePort = Field(8080, description="Port of the API, on the head.", examples=[8080])
    rpc_port: t.OnePort = Field(50052, description="Port of the RPC servers.", examples=[50052])
    clients: t.Source = Field(
        "cluster", description="Who may use the API: `cluster`, `any`, or a network.", examples=["192.168.1.0/24"]
    )


def options(cluster: Cluster) -> LlamaCpp:
    assert isinstance(cluster.engine, LlamaCpp)
    return cluster.engine


def head(cluster: Cluster) -> str:
    """The name of the head."""
    return options(cluster).head or cluster.nodes[0].name


def ports(cluster: Cluster) -> tuple[Port, ...]:
    wanted = options(cluster)
    return (
        Port("tcp", str(wanted.rpc_port), "cluster", "llama.cpp RPC"),
        Port("tcp", str(wanted.port), str(wanted.clients), "llama.cpp API"),
    )


def facts(cluster: Cluster, files: Files) -> dict[str, Any]:
    wanted = options(cluster)
    workers = [node for node in cluster.nodes if node.name != head(cluster)]
    return {
        "head": head(cluster),
        "api": {"port": wanted.port},
        "rpc": {"port": wanted.rpc_port},
        "workers": [f"{node.address}:{wanted.rpc_port}" for node in workers],
        "model": gguf.served(cluster.models, wanted.model, files),
        "context": wanted.context,
        "gpu_layers": wanted.gpu_layers,
        "threads": wanted.threads,
        "prefix": PREFIX,
        "libexec": LIBEXEC,
        "driver_libraries": list(cuda.DRIVER) if cuda.wanted(cluster) else [],
        "units": {"head": ["llamacpp-server.service"], "worker": ["llamacpp-rpc.service"]},
    }


def check(cluster: Cluster, files: Files) -> tuple[Finding, ...]:
    """Mistakes of a spec that chose this engine; values that could not be read are None."""
    wanted, found = options(cluster), []
    names = [node.name for node in cluster.nodes if node and node.name]
    if wanted.head and names and wanted.head not in names:
        found.append(Finding(("engine", "head"), f"no node is called {wanted.head}", f"nodes: {', '.join(names)}"))
    if unservable := gguf.complaint(cluster.models, wanted.model, files):
        found.append(unservable)
    for index, node in enumerate(cluster.nodes):
        if node and node.address == "dhcp":
            message = "llama.cpp names its workers by address, and dhcp gives none that is known before"
            found.append(Finding(("nodes", index, "address"), message, "give it a static address"))
    return tuple(found)


def minimum(cluster: Cluster, files: Files) -> Minimum:
    """The weights are shared out, and so is the context; programs and buffers are each node's own."""
    wanted = options(cluster)
    return Minimum(
        weights=gguf.weights(cluster.models, wanted.model, files),
        memory=PROGRAM,
        about=len(cluster.nodes) * BUFFERS + wanted.context * TOKEN,
    )


def part(cluster: Cluster) -> Part:
    names = ("base-files", "llama.cpp-tools", "llama.cpp-tools-extra", "libggml0-backend-rpc")
    plain = Part(prefix=PREFIX, release="forky", names=names)
    return cuda.with_backend(plain) if cuda.wanted(cluster) else plain


def try_out(cluster: Cluster) -> Trial:
    wanted, first = options(cluster), head(cluster)
    workers = {node.name: str(node.address) for node in cluster.nodes if node.name != first}
    return trial.trial(first, wanted.port, workers, wanted.rpc_port)


def chat(cluster: Cluster, text: str) -> Request:
    return completion(head(cluster), options(cluster).port, text)


KIND = Kind(
    options=LlamaCpp,
    part=part,
    formats=gguf.FORMATS,
    ports=ports,
    facts=facts,
    check=check,
    minimum=minimum,
    trial=try_out,
    chat=chat,
    advice=cuda.advice,
    on_gpu=cuda.on_gpu,
    smoke=(("/usr/bin/llama-server", "--version"), (f"{LIBEXEC}/ggml-rpc-server", "--help")),
)
