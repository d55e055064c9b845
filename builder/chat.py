"""One question to a cluster's engine, from the admin's machine."""

from __future__ import annotations

import urllib.error

from builder import engines
from builder.errors import BuilderError, Exit
from builder.spec.model import Cluster
from builder.status import host
from builder.verify.clusterspec import ask


def chat(cluster: Cluster, text: str) -> str:
    """The engine's answer. Raises BuilderError (BOOT) if there is none, (SPEC) for an engine that cannot talk."""
    kind = engines.of(cluster)
    request = kind.chat(cluster, text)
    if request is None:
        hint = "it needs an engine that serves a language model, and a model in the spec"
        raise BuilderError(f"{cluster.name}: engine {kind.name} answers no questions", hint=hint, code=Exit.SPEC)
    base = f"http://{host(cluster.node(request.node))}:{request.port}"
    try:
        return ask(request, base)
    except urllib.error.HTTPError as error:
        why = f"{error.code}: {error.read(500).decode(errors='replace').strip()}"
    except (OSError, ValueError) as error:
        why = str(getattr(error, "reason", error))
    hint = "builder status says how the nodes are; the API is open to `clients` of the engine only"
    raise BuilderError(f"no answer from {base}: {why}", hint=hint, code=Exit.BOOT)
