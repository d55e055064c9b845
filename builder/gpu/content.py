"""What of the node is ours because it has GPUs: rendered files, and all that decides the gpu layer. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from builder import render
from builder.canonical import code_digest
from builder.gpu import choice_of, stack_of

if TYPE_CHECKING:
    from builder.spec.model import Cluster

FACTS = "/etc/builder/gpu.json"  # what the node's proof holds it to
CERTIFICATE = "/usr/share/builder/mok.pem"


def base_files(cluster: Cluster) -> tuple[render.File, ...]:
    """For the base layer: what must be there before the first initramfs is made."""
    return render.overlay("base-gpu", {}) if cluster.gpu else ()


def signed_by(cluster: Cluster) -> str:
    """Who signs the modules: "mok" (the spec's key), "distribution", or "nobody"."""
    choice = choice_of(cluster)
    if choice is None or not choice.compiled:
        return "distribution"
    return "mok" if cluster.gpu and cluster.gpu.mok else "nobody"


def facts(cluster: Cluster) -> dict[str, Any] | None:
    """What a node must know of its GPUs; None for a cluster without."""
    stack = stack_of(cluster)
    if stack is None or cluster.gpu is None:
        return None
    return {**dataclasses.asdict(stack), "signed": signed_by(cluster), "install": cluster.gpu.install}


def files(cluster: Cluster) -> tuple[render.File, ...]:
    """For the gpu layer, besides the modules."""
    assert cluster.gpu is not None
    made = [render.File(FACTS, 0o644, (json.dumps(facts(cluster), indent=1) + "\n").encode())]
    if signed_by(cluster) == "mok" and cluster.gpu.mok and cluster.gpu.mok.pem:
        made.append(render.File(CERTIFICATE, 0o644, cluster.gpu.mok.pem))
    return (*render.overlay("gpu", {"distribution": cluster.distribution.name}), *made)


def inputs(cluster: Cluster) -> dict[str, Any] | None:
    """All that decides the layer, besides the packages and the base it stands on; None without GPUs.

    The private key is not among it: whoever has another one has another certificate.
    """
    choice = choice_of(cluster)
    if choice is None or cluster.gpu is None:
        return None
    return {
        "code": code_digest("layers/gpu.py", "layers/modules.py", "layers/squashfs.py", "sandbox.py"),
        "files": [file.fingerprint for file in files(cluster)],
        "source": choice.modules.source if choice.compiled else None,
        "patches": [patch.sha256 for patch in cluster.gpu.patches],
        "signed": signed_by(cluster),
    }
