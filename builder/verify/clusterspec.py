"""From a spec and its medium to the test of the whole cluster, its engine included.

What an engine's trial is, its module says (:mod:`builder.engines.trial`); here it is carried out.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from builder import engines, firewall
from builder.engines.trial import Look, Request, Trial
from builder.lock import Lock
from builder.spec.model import Cluster
from builder.verify.clusterrequest import ClusterTest, Engine
from builder.verify.firmware import FirmwareKind
from builder.verify.report import StepFailed
from builder.verify.spec import boot_test_of
from builder.verify.ssh import Ssh

_SHOWN = 4000  # characters of what a proof was looked for in


def cluster_test_of(cluster: Cluster, lock: Lock, iso: Path, out: Path, *, firmware: FirmwareKind) -> ClusterTest:
    """The test of every node together. Raises BuilderError as :func:`builder.verify.spec.boot_test_of`."""
    nodes = tuple(
        boot_test_of(cluster, lock, node, iso, out / node.name, firmware=firmware, medium="cdrom")
        for node in cluster.nodes
    )
    inside = [
        rule for rule in firewall.rules(cluster) if rule.source and rule.proto == "tcp" and rule.ports.isdigit()
    ]
    trial = engines.of(cluster).trial(cluster)
    return ClusterTest(
        nodes=nodes,
        out=out,
        head=trial.request.node if trial else cluster.nodes[0].name,
        engine=engine_of(trial) if trial else None,
        inside_only=tuple(int(rule.ports) for rule in inside),
    )


def engine_of(trial: Trial) -> Engine:
    """A trial as the cluster test carries it out."""
    return Engine(
        head=trial.request.node,
        port=trial.request.port,
        listens=trial.listens,
        complete=partial(ask, trial.request),
        evidence=partial(prove, trial),
    )


def ask(request: Request, base_url: str) -> str:
    """Send the request to what stands for its node's port; the answer's text, which is never empty.

    Raises OSError or ValueError if there is none.
    """
    body = None if request.body is None else json.dumps(request.body).encode()
    headers = {"Content-Type": "application/json"} if body else {}
    sent = urllib.request.Request(base_url + request.path, body, headers)
    with urllib.request.urlopen(sent, timeout=request.patience) as reply:
        answer = reply.read()
    try:
        text = request.read(answer)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{request.path} answered {answer[:200]!r} ({type(error).__name__}: {error})") from error
    if not text.strip():
        raise ValueError(f"{request.path} answered with an empty text")
    return text


def prove(trial: Trial, nodes: Mapping[str, Ssh]) -> str:
    """Look at the nodes, by their names, for the proof that each took part. Raises StepFailed if there is none."""
    verdict = trial.judge([_look(nodes[look.node], look) for look in trial.looks])
    if not verdict.proven:
        raise StepFailed(verdict.said, verdict.shown[-_SHOWN:])
    return verdict.said


def _look(node: Ssh, look: Look) -> str:
    done = node.once(look.command)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-_SHOWN:]
        raise StepFailed(f"on {look.node} `{look.command}` exited {done.returncode}", said)
    return done.stdout
