"""llama.cpp on GPUs: ggml's CUDA backend, for a spec that has them. Pure.

Debian packages it in contrib, for CUDA 12.4 (ggml-cuda 0.27.0, in unstable only, November 2026), beside a ggml
that is the same as the next release's. The driver's libraries are the node's own, mounted into the root: they
must be those of its kernel module, and the packages' are of whatever driver the archive has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder import gpu
from builder.engines.kind import Part
from builder.gpu.table import version

if TYPE_CHECKING:
    from builder.spec.model import Cluster

CUDA = "12.4"
DRIVER = ("libcuda.so.1", "libnvidia-ptxjitcompiler.so.1")
BACKEND = "/usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so"
# The packages' driver, which no program of a node finds: it stands in for the node's when the layer is made.
_STAND_IN = "/usr/lib/x86_64-linux-gnu/nvidia/current"
_LOADER = ("/lib64/ld-linux-x86-64.so.2", "--library-path", _STAND_IN)


def wanted(cluster: Cluster) -> bool:
    """Whether the nodes have GPUs that CUDA may use."""
    stack = gpu.stack_of(cluster)
    return stack is not None and stack.cuda is not None


def with_backend(plain: Part) -> Part:
    """The part with the backend, held to having every library of CUDA's that it needs."""
    return replace(
        plain,
        release="sid",
        components=("main", "contrib", "non-free"),
        names=(*plain.names, "libggml0-backend-cuda"),
        smoke=((*_LOADER, "--list", BACKEND), (*_LOADER, "/usr/bin/llama-server", "--list-devices")),
    )


def advice(cluster: Cluster) -> tuple[str, ...]:
    """A card that is younger than the backend's CUDA gets its code from the driver."""
    choice = gpu.choice_of(cluster)
    if choice is None or not wanted(cluster) or version(CUDA) >= version(choice.model.cuda):
        return ()
    return (
        f"llama.cpp's CUDA backend is made for CUDA {CUDA}, which has no code for the {choice.model.name}: "
        "the driver has to translate it at the first start",
    )


def on_gpu(cluster: Cluster) -> str | None:
    """Ask llama.cpp itself, in its unit's own surroundings, for its devices."""
    if not wanted(cluster):
        return None
    units = "llamacpp-server.service llamacpp-rpc.service"
    pid = f"$(systemctl show --property MainPID --value {units} | grep -v '^0*$' | head -n 1)"
    return f"nsenter --target {pid} --mount --root /usr/bin/llama-server --list-devices | grep CUDA"
