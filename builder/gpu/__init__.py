"""The GPU stack: which driver and CUDA a cluster's nodes carry, decided by a table before anything is built.

:func:`stack_of` is what the rest of the builder reads; engines too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.distributions import codename_of
from builder.gpu.choose import Choice, Wish, choose
from builder.gpu.table import Table, table
from builder.spec.finding import Finding

if TYPE_CHECKING:
    from builder.spec.model import Cluster

__all__ = ["Choice", "GpuStack", "Table", "choice_of", "driver_libraries", "stack_of", "table"]

# What a CUDA program needs of the driver's packages, by their sonames. They must be those of the node's kernel
# module, so an engine with a root of its own has the node's mounted in.
DRIVER_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvidia-nvvm.so.4")


@dataclass(frozen=True)
class GpuStack:
    """What an engine needs to know of the GPUs.

    ``driver``: the branch, "580". ``cuda``: the extra that an engine's wheels should have, "cuda12" or "cuda13";
    None where the driver or the spec rules it out. ``vram_mib``: of a node's cards together. ``compute``: the
    compute capability, "12.0". ``version``: the driver's, at least. ``modules``: "open" or "proprietary".
    """

    driver: str
    cuda: str | None
    vram_mib: int
    compute: str
    model: str
    count: int
    version: str
    modules: str


def wish_of(cluster: Cluster) -> Wish | None:
    """What the spec asks for; None without a gpu section, or for a draft whose section could not be read."""
    gpu = cluster.gpu
    if gpu is None or not gpu.model:
        return None
    release = codename_of(cluster.distribution.name, cluster.distribution.release)
    if release is None:
        return None
    return Wish(
        model=gpu.model,
        distribution=cluster.distribution.name,
        release=release,
        source=gpu.source,
        driver=gpu.driver,
        modules=gpu.modules,
        cuda=gpu.cuda,
        install=gpu.install,
        compile=gpu.dkms,
    )


def judge(cluster: Cluster) -> Choice | tuple[Finding, ...]:
    """The choice, or what is wrong; nothing at all without a wish that can be read."""
    wish = wish_of(cluster)
    return choose(wish, table()) if wish else ()


def choice_of(cluster: Cluster) -> Choice | None:
    """What the table chose for a loaded cluster; None if it has no GPUs."""
    found = judge(cluster)
    return found if isinstance(found, Choice) else None


def stack_of(cluster: Cluster) -> GpuStack | None:
    """What an engine needs to know; None for a cluster without GPUs. Pure."""
    choice = choice_of(cluster)
    if choice is None or cluster.gpu is None:
        return None
    return GpuStack(
        driver=choice.branch.name,
        cuda=table().extras[choice.cuda].name if choice.cuda else None,
        vram_mib=choice.model.vram * cluster.gpu.count,
        compute=choice.model.compute,
        model=choice.model.key,
        count=cluster.gpu.count,
        version=choice.branch.version,
        modules=choice.flavour,
    )


def driver_libraries(cluster: Cluster) -> tuple[str, ...]:
    """:data:`DRIVER_LIBRARIES` where the nodes have GPUs, whatever CUDA is for them."""
    return DRIVER_LIBRARIES if cluster.gpu else ()
