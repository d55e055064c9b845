"""vLLM on Ray: one OpenAI endpoint on the head, a model over the GPUs of all nodes.

Facts: vLLM's docs/serving/parallelism_scaling.md: tensor parallel within a node, pipeline parallel across nodes,
Ray as the executor. Its processes and NCCL's listen on ports that the kernel picks, so the kernel's range is made
small and opened to the cluster's subnet. Workers have what the driver has in its environment, but never over their
node's own (0.33, vllm/v1/executor/ray_executor_v2.py). Triton compiles at run time and calls a C compiler, torch's
inductor one for C++. No GPU was at hand: this was checked against the programs' source, and never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from builder.engines import trial
from builder.engines.kind import Files, Finding, Port
from builder.engines.trial import Request
from builder.gpu import stack_of
from builder.spec import types as t
from builder.spec.section import Section

if TYPE_CHECKING:
    from builder.spec.model import Cluster

OWN = ("vllm>=0.10",)
PACKAGES = ("gcc", "g++", "libc6-dev", "libpython3.13-dev")
FORMATS = (".safetensors",)
# Ports that the kernel may pick, on nodes with vLLM.
PICKED = (20000, 29999)
CUDA = "cuda13"  # that the index's own torch is made for
# torch computes something on the GPU, in the surroundings of Ray's unit.
ON_GPU = (
    "nsenter --target $(systemctl show --property MainPID --value ray.service) --mount --root "
    "/usr/local/bin/python -c \"import torch; print(torch.ones(8, device='cuda').sum().item())\" | grep -x 8.0"
)


class Vllm(Section):
    """vLLM over all nodes: one OpenAI API on the head. Needs the `gpu` section."""

    model: t.FileName = Field(
        description="Which of `models` to serve: the folder of a repository with config.json and safetensors.",
        examples=["org--name"],
    )
    port: t.OnePort = Field(8000, description="Port of the API, on the head.", examples=[8000])
    context: t.Context | None = Field(
        None, description="Context length in tokens. Default: the model's own.", examples=[8192]
    )


def ports(wanted: Vllm, watchers: Sequence[str]) -> tuple[Port, ...]:
    return (
        *(Port("tcp", str(wanted.port), source, "vLLM API") for source in watchers),
        Port("tcp", f"{PICKED[0]}-{PICKED[1]}", "cluster", "vLLM and NCCL"),
    )


def facts(wanted: Vllm, cluster: Cluster) -> dict[str, Any]:
    return {
        "model": wanted.model,
        "port": wanted.port,
        "context": wanted.context,
        "picked": list(PICKED),
        "nodes": len(cluster.nodes),
        "gpus": gpus(cluster) or 1,
    }


def chat(wanted: Vllm, head: str, text: str) -> Request:
    """One answer to a text."""
    return trial.chat(head, wanted.port, text, model=wanted.model)


def gpus(cluster: Cluster) -> int:
    """How many GPUs a node has; 0 without a gpu section."""
    return cluster.gpu.count if cluster.gpu else 0


def check(wanted: Vllm, cluster: Cluster, files: Files) -> list[Finding]:
    path = ("engine", "vllm")
    found = []
    if cluster.gpu is None:
        hint = "add the gpu section, or leave vllm out"
        found.append(Finding(path, "vLLM needs GPUs, and the spec has no gpu section", hint, (("gpu",),)))
    elif (stack := stack_of(cluster)) and stack.cuda != CUDA:
        message = f"vLLM's packages are made for {CUDA}, and the nodes have {stack.cuda or 'no CUDA'}"
        hint = (
            "it comes with driver 580 or later: Ubuntu's archive has that, NVIDIA's (gpu.source) too; and gpu.cuda"
        )
        found.append(Finding(path, message, f"{hint} must allow it", (("gpu",),)))
    folders = [model.name for model in cluster.models if model and model.repo]
    if wanted.model and wanted.model not in folders:
        there = f"repositories: {', '.join(folders)}" if folders else "add a repository to models"
        found.append(Finding((*path, "model"), f"no repository among models is called {wanted.model}", there))
    elif wanted.model and files is not None:
        mine = [name for name in files if name.startswith(f"{wanted.model}/")]
        lacking = [
            name for name in ("config.json", "tokenizer_config.json") if f"{wanted.model}/{name}" not in mine
        ]
        if not any(name.endswith(FORMATS) for name in mine):
            lacking.append("*.safetensors")
        if lacking:
            message = f"{wanted.model} lacks {', '.join(lacking)}"
            found.append(Finding((*path, "model"), message, "add them to the `files` of its repository"))
    return found


def weights(wanted: Vllm, files: Files) -> tuple[str, ...]:
    """The files that are loaded, as far as there are any by the lock."""
    return tuple(name for name in files or () if name.startswith(f"{wanted.model}/") and name.endswith(FORMATS))
