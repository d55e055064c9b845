"""Where the GPU stack's packages come from, and which: what the lock asks of apt because of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builder.distributions import Distribution, Foreign
from builder.errors import BuilderError, Exit
from builder.gpu import Choice, choice_of, packages
from builder.sources import apt
from builder.sources.mirror import Mirror

if TYPE_CHECKING:
    from builder.spec.model import Cluster

LABEL = "nvidia"  # of NVIDIA's archive, in the lock and among the mirrors

# NVIDIA's archive has every branch under the same names.
OF_THE_DRIVER = ("*nvidia*", "libcuda1", "libcudadebugger1", "libnvcuvid1", "libnvoptix1", "cuda-drivers*")

# What lets containers have the GPUs; no distribution has it. In NVIDIA's archives it has versions of its own.
TOOLKIT = "nvidia-container-toolkit"
_OF_THE_TOOLKIT = (f"{TOOLKIT}*", "libnvidia-container*")


def with_gpu(target: Distribution, cluster: Cluster) -> Distribution:
    """The nodes' release, with the driver among its packages; unchanged without GPUs. Pure."""
    choice = choice_of(cluster)
    if choice is None:
        return target
    repository = cluster.gpu.repository if cluster.gpu else None
    foreign: tuple[Foreign, ...] = ()
    if repository and repository.keyring:
        foreign = (Foreign(LABEL, repository.keyring, choice.branch.name, OF_THE_DRIVER, _OF_THE_TOOLKIT),)
    return replace(
        target,
        components=(*target.components, *choice.components),
        packages=tuple(sorted({*target.packages, *packages.on_node(choice, target.kernel), *_toolkit(cluster)})),
        foreign=foreign,
    )


def _toolkit(cluster: Cluster) -> tuple[str, ...]:
    """What containers need for GPUs, where it can be had."""
    has = cluster.runtime == "docker" and cluster.gpu is not None and cluster.gpu.repository is not None
    return (TOOLKIT,) if has else ()


def with_archive(mirror: Mirror, cluster: Cluster) -> Mirror:
    """The mirrors, with NVIDIA's archive where the spec names it. Pure."""
    repository = cluster.gpu.repository if cluster.gpu else None
    return replace(mirror, uris={**mirror.uris, LABEL: repository.url.rstrip("/")}) if repository else mirror


def asks(cluster: Cluster) -> dict[str, Any] | None:
    """What the spec leaves to a lock, besides the packages of the nodes. Pure."""
    choice = choice_of(cluster)
    if choice is None or cluster.gpu is None:
        return None
    repository = cluster.gpu.repository
    return {
        "compiles": choice.modules.source if choice.compiled else None,
        "archive": {"url": repository.url, "key": repository.fingerprint} if repository else None,
    }


def to_compile(choice: Choice, node: Iterable[str]) -> tuple[str, ...]:
    """What the root that compiles is asked to have: what every source needs, and what this one does. Pure."""
    return (*packages.to_compile(choice, node), *choice.modules.tools)


def require_prebuilt(choice: Choice, node: Sequence[str]) -> None:
    """Raises BuilderError if the distribution has no modules for a kernel that the node would have. Pure.

    Ubuntu's kernel is now and then some days ahead of its modules; apt then takes an older kernel besides.
    """
    assert choice.modules.prebuilt is not None
    for kernel in packages.kernels(node):
        wanted = choice.modules.prebuilt.format(flavour=kernel)
        if wanted not in node:
            others = [name for name in node if name.startswith(choice.modules.prebuilt.partition("{")[0])]
            raise BuilderError(
                f"the archive has the kernel {kernel} and not {wanted}; it has {', '.join(others) or 'none'}",
                hint="its modules come some days after a kernel: lock again then, or write gpu.dkms: true",
                code=Exit.SPEC,
            )


def resolve_modules(
    cluster: Cluster, target: Distribution, mirror: Mirror, node: tuple[apt.Package, ...]
) -> tuple[apt.Package, ...]:
    """The packages of the root that compiles modules for the kernels among the ``node``'s; none if nothing is.

    Raises as :func:`builder.sources.apt.resolve`, and as :func:`require_prebuilt`.
    """
    choice = choice_of(cluster)
    if choice is None:
        return ()
    if not choice.compiled:
        require_prebuilt(choice, [package.name for package in node])
        return ()
    found = apt.resolve_part(target, mirror, to_compile(choice, [package.name for package in node]))
    # Headers depend on the kernel's image, which the node has and the compiler does not read.
    return tuple(package for package in found if not packages.kernels([package.name]))
