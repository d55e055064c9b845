"""The shape of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.engines.recipe import Recipe
from builder.engines.trial import Request, Trial
from builder.sources.wheels import Wheels
from builder.spec.engine import Engine
from builder.spec.finding import Finding

if TYPE_CHECKING:
    from builder.spec.model import Cluster

__all__ = ["HOME", "Files", "Finding", "Kind", "Minimum", "Part", "Port", "Read", "Trial", "Wheels"]

# Every model file's size in bytes, by its path below the node's folder of models: what the lock knows. None: there
# is no lock yet, so that only the names in the spec are known, and of a repository not a single file.
Files = Mapping[str, int] | None

# Where a part's virtual environment is, for programs that run inside the part.
HOME = "/usr/local"

# A text file of a source by the source's name and the file's path.
Read = Callable[[str, str], str]


@dataclass(frozen=True)
class Port:
    """What an engine needs opened: a port, or a range like "8000-8010".

    ``source``: "cluster" (the subnet), "link-local" (IPv6 on the cable), "any", or a network. What is opened to
    two of them is two of these with the same ``why``.
    """

    proto: str
    ports: str
    source: str
    why: str

    def overlaps(self, proto: str, first: int, last: int) -> bool:
        """Whether it is among these ports."""
        mine = self.ports.partition("-")
        return proto == self.proto and int(mine[0]) <= last and first <= int(mine[2] or mine[0])


@dataclass(frozen=True)
class Part:
    """A root of its own for programs that the node's release does not have.

    Packages of a release of ``distribution``, which need not be what the nodes run, laid out under ``prefix``;
    ``names`` are asked of apt, and dependencies follow; ``components`` are the archive's, if not the usual ones.
    ``smoke``: programs to run besides the kind's, where the part depends on the spec.

    With ``python`` ("3.13", which must be among the packages) it also holds a virtual environment, at :data:`HOME`
    below the prefix, of what the kind's ``wheels`` ask for. ``asks`` is what that depends on, in the engine's own
    words: a lock that answers others is stale. ``recipe``: what is built from source and joins them.
    """

    prefix: str
    release: str
    names: tuple[str, ...]
    distribution: str = "debian"
    components: tuple[str, ...] = ()
    smoke: tuple[tuple[str, ...], ...] = ()
    python: str | None = None
    asks: tuple[str, ...] = ()
    recipe: Recipe | None = None

    @property
    def tools(self) -> tuple[str, ...]:
        """Packages that build it, of which nothing comes to the node."""
        return self.recipe.tools if self.recipe else ()


@dataclass(frozen=True)
class Minimum:
    """The least that an engine runs with, in bytes.

    ``weights``: the model files that it loads, which all nodes hold together. ``memory``: what each node needs
    beside them, whatever the model. ``about``: what all nodes together need on top of both, as an estimate.
    ``disk``: what it writes to each node's root partition.
    """

    weights: tuple[str, ...] = ()
    memory: int = 0
    about: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Kind:
    """An engine. All functions are pure.

    ``options``: its group in the spec. ``part``: its programs. ``wheels``: the Python packages among them, which a
    source that is built may have a say in; it is asked when a lock is made. ``formats``: endings of model files
    that it can load. ``chat``: how to ask it for one answer to a text, if it can talk. ``advice``: what `validate`
    says of a spec without mistakes. ``on_gpu``: a command for root's shell on a node that exits 0 when the
    engine's own library computed something on its GPU. ``ports``: what the firewall opens. ``facts``: what a node
    must know of it, for ``/etc/builder/cluster.json`` and the templates of its overlay. ``check``: what is wrong
    with a spec that chose it; it is asked for a draft without files, and once more when there is a lock.
    ``minimum``: what it needs. ``trial``: how to prove that it works. ``smoke``: programs that must exit 0 inside
    the part when the layer is made.
    """

    options: type[Engine]
    part: Callable[[Cluster], Part | None]
    formats: tuple[str, ...]
    ports: Callable[[Cluster], tuple[Port, ...]]
    facts: Callable[[Cluster, Files], dict[str, Any]]
    check: Callable[[Cluster, Files], tuple[Finding, ...]]
    minimum: Callable[[Cluster, Files], Minimum]
    trial: Callable[[Cluster], Trial | None]
    smoke: tuple[tuple[str, ...], ...] = ()
    wheels: Callable[[Cluster, Read], Wheels] | None = None
    chat: Callable[[Cluster, str], Request | None] = lambda _cluster, _text: None
    advice: Callable[[Cluster], tuple[str, ...]] = lambda _cluster: ()
    on_gpu: Callable[[Cluster], str | None] = lambda _cluster: None

    @property
    def name(self) -> str:
        """As the spec and the overlay's folder spell it."""
        return str(self.options.model_fields["name"].default)

    @property
    def overlay(self) -> str:
        """The name of its overlay below ``overlays/``."""
        return f"engine-{self.name}"
