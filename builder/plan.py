"""The plan: everything a build will do, as one frozen value, before anything happens.

Pure: spec and lock in, plan out; no network, no root, no process. ``plan.id`` is the digest of all of it,
our own code and templates included, and names the build on the medium and on every node. Without a lock the
plan still shows what would be made, but its packages are unknown, and so it has no id.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from builder import autoinstall, engines, firewall, nodefacts, render, seeds, stack
from builder.canonical import code_digest, digest, resource_digest
from builder.containers.manifest import LockedImage
from builder.distributions import Distribution
from builder.errors import Mistake, SpecError
from builder.gpu import content as gpu
from builder.lock import Lock, LockedModel, belongs, target_of
from builder.spec.model import Cluster
from builder.spec.read import dotted
from builder.stack import Layer

__all__ = ["Layer", "Plan", "document_path", "for_subiquity", "make", "mistakes", "overlays", "site_context"]

FORMAT = 1
AUTOINSTALL = "/autoinstall.yaml"  # on the live system; the picker fills in the disk


@dataclass(frozen=True)
class Plan:
    """See the module. ``seeds``: node name → file name → content. ``site``: the site layer's rendered files.

    For Ubuntu's own installer: ``documents``, node name → its autoinstall document, and ``live``, what its live
    system runs of ours; both are empty with the direct installer.
    """

    cluster: Cluster
    target: Distribution
    lock: Lock | None
    site: tuple[render.File, ...]
    seeds: Mapping[str, Mapping[str, bytes]]
    layers: tuple[Layer, ...]
    documents: Mapping[str, bytes]
    live: Mapping[str, bytes]

    @cached_property
    def id(self) -> str | None:
        """64 hex digits, or None without a lock."""
        return None if self.lock is None else digest(self.summary())

    @property
    def base(self) -> Layer:
        return self.layers[0]

    @property
    def base_files(self) -> tuple[render.File, ...]:
        """What the base layer has of ours."""
        return stack.base_files(self.cluster)

    @property
    def epoch(self) -> int:
        """The date of everything that is built: seconds since 1970."""
        return self.lock.epoch if self.lock else 0

    @property
    def models(self) -> tuple[LockedModel, ...]:
        return self.lock.models if self.lock else ()

    @property
    def images(self) -> tuple[LockedImage, ...]:
        return self.lock.images if self.lock else ()

    @property
    def texts(self) -> dict[str, bytes]:
        """What of the payload is rendered: its path on the medium, below the payload's folder → content."""
        found = {f"seeds/{node}/{name}": text for node, seed in self.seeds.items() for name, text in seed.items()}
        return found | {document_path(node): text for node, text in self.documents.items()}

    @property
    def bootstrap(self) -> bytes:
        """The document that every machine gets first, with Ubuntu's own installer: it runs the picker."""
        return render.dump_yaml(autoinstall.bootstrap(self.cluster))

    @property
    def serial(self) -> nodefacts.Console | None:
        return nodefacts.serial(self.cluster)

    @property
    def ours(self) -> dict[str, str]:
        """What of the builder itself decides what is on the medium besides the layers, as digests."""
        return {
            "code": code_digest("autoinstall", "media", "installer", "layers"),
            "templates": resource_digest("templates", "overlays/installer"),
        }

    @property
    def kernel_arguments(self) -> str:
        return nodefacts.consoles(self.cluster)

    def summary(self) -> dict[str, Any]:
        """The whole plan as JSON data, without its id: what ``builder plan --json`` prints and the id covers."""
        return {
            "format": FORMAT,
            "cluster": self.cluster.name,
            "distribution": {"name": self.target.name, "release": self.target.codename},
            "epoch": self.epoch,
            "layers": [{"name": layer.name, "file": layer.file, "digest": layer.digest} for layer in self.layers],
            "packages": [
                {
                    "name": p.name,
                    "version": p.version,
                    "architecture": p.architecture,
                    "size": p.size,
                    "sha256": p.sha256,
                }
                for p in ((*self.lock.packages, *self.lock.engine) if self.lock else ())
            ],
            "gpu": gpu.facts(self.cluster),
            "wheels": [dataclasses.asdict(wheel) for wheel in (self.lock.wheels if self.lock else ())],
            "sources": [dataclasses.asdict(source) for source in (self.lock.sources if self.lock else ())],
            "models": [{"name": m.name, "size": m.size, "sha256": m.sha256} for m in self.models],
            "images": [{"name": i.name, "digest": i.digest, "size": i.size} for i in self.images],
            "storage": nodefacts.storage(self.cluster, self.models),
            "nodes": [
                {
                    "name": node.name,
                    "match": node.match.model_dump(mode="json", exclude_none=True),
                    "disk": nodefacts.disk(self.cluster, node),
                    "address": str(node.address),
                    "seed": _digests(self.seeds[node.name]),
                }
                for node in self.cluster.nodes
            ],
            "autoinstall": _digests(self.documents),
            "live": _digests(self.live),
            "base_iso": dataclasses.asdict(self.lock.iso) if self.lock and self.lock.iso else None,
            "media": {**self.cluster.media.model_dump(mode="json"), "volume": self.cluster.volume},
            **self.ours,
        }

    def files(self, node: str) -> dict[str, bytes]:
        """Every rendered file of one node by its path on the node; symbolic links are not among them."""
        hidden = b"(a secret, which is not shown)\n"
        rendered = {
            file.path: hidden if file.mode == render.SECRET else file.content
            for file in self.site
            if file.link is None
        }
        seed = {f"{seeds.FOLDER}/{name}": text for name, text in self.seeds[node].items()}
        document = {AUTOINSTALL: self.documents[node]} if node in self.documents else {}
        return {**rendered, **seed, **document}


def make(cluster: Cluster, lock: Lock | None) -> Plan:
    """The plan for a cluster; without a lock it can be looked at but not built.

    Raises SpecError if the spec asks for something that is not in what the lock found.
    """
    wrong = mistakes(cluster, lock)
    if wrong:
        raise SpecError(f"{cluster.name} with its lock", wrong)
    context = site_context(cluster, lock)
    site = tuple(file for name in overlays(cluster) for file in render.overlay(name, context))
    if cluster.base_iso:
        site = (*site, *for_subiquity())
    shared = seeds.user_data(cluster)
    made = {node.name: seeds.seed(cluster, node, shared) for node in cluster.nodes}
    return Plan(
        cluster=cluster,
        target=target_of(cluster),
        lock=lock,
        site=site,
        seeds=made,
        layers=stack.layers(cluster, lock, site),
        documents=_documents(cluster, lock, made),
        live=autoinstall.live_seed(cluster) if cluster.base_iso else {},
    )


def overlays(cluster: Cluster) -> tuple[str, ...]:
    """The overlays that the site layer is made of: everybody's, the engine's, the containers' runtime's."""
    runtime = () if cluster.runtime == "none" else (f"runtime-{cluster.runtime}",)
    return ("site", engines.of(cluster).overlay, *runtime)


def document_path(node: str) -> str:
    """Where a node's autoinstall document is in the payload. JSON is YAML, and any Python can read it."""
    return f"autoinstall/{node}.json"


def _documents(cluster: Cluster, lock: Lock | None, made: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    if not cluster.base_iso:
        return {}
    sizes = nodefacts.storage(cluster, lock.models if lock else ())
    documents = {node.name: autoinstall.document(cluster, node, made[node.name], sizes) for node in cluster.nodes}
    return {name: (json.dumps(found, indent=1) + "\n").encode() for name, found in documents.items()}


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def mistakes(cluster: Cluster, lock: Lock | None) -> tuple[Mistake, ...]:
    """What only a lock shows to be wrong with a loaded spec. A lock of another spec shows nothing."""
    if lock is None or not belongs(lock, cluster):
        return ()
    found = engines.of(cluster).check(cluster, lock.files)
    return tuple(Mistake(0, dotted(one.path), one.message, one.hint) for one in found)


def site_context(cluster: Cluster, lock: Lock | None) -> dict[str, Any]:
    """What the templates of ``overlays/site`` and of the engine's overlay may use."""
    facts = nodefacts.of_cluster(cluster, lock)
    return {
        "cluster": cluster,
        "rules": firewall.rules(cluster),
        "consoles": nodefacts.consoles(cluster),
        "serial": nodefacts.serial(cluster),
        "engine": facts["engine"],
        "facts": facts,
    }


def for_subiquity() -> tuple[render.File, ...]:
    """What the site layer brings for Ubuntu's installer to find; none of it stays on the node."""
    return render.overlay("subiquity", {"live": autoinstall.LIVE})
