"""What is wrong with a spec's gpu section, and what is likely to be regretted. Pure; takes a draft."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.gpu import judge
from builder.gpu.choose import Choice
from builder.spec.finding import Finding, Keys

if TYPE_CHECKING:
    from builder.spec.gpu import Gpu
    from builder.spec.model import Cluster

_RESTS: tuple[Keys, ...] = (
    *(("distribution", key) for key in ("name", "release", "kernel")),
    *(("gpu", key) for key in ("model", "driver", "modules", "cuda", "install", "source", "dkms")),
)


def gpu_fits(cluster: Cluster) -> Iterator[Finding]:
    """Card, driver, CUDA and release, by the table; and keys that need each other."""
    gpu = cluster.gpu
    if gpu is None or not gpu.model:
        return
    if (gpu.source == "nvidia") != (gpu.repository is not None):
        message = "needs gpu.repository" if gpu.source == "nvidia" else "is archive, and gpu.repository is given"
        hint = "give the archive's url, key and fingerprint; or leave both out"
        yield Finding(("gpu", "source"), message, hint, (("gpu", "repository"),))
    found = judge(cluster)
    if not isinstance(found, Choice):
        for one in found:
            yield Finding(one.path, one.message, one.hint, (*_RESTS, *one.rests_on))
        return
    yield from _compiled(gpu, found)
    if cluster.distribution.kernel == "cloud" and cluster.distribution.name == "ubuntu" and not found.compiled:
        message = "Ubuntu's signed modules are for its generic and hwe kernels"
        yield Finding(("distribution", "kernel"), message, "write generic or hwe, or gpu.dkms: true", _RESTS)


def _compiled(gpu: Gpu, choice: Choice) -> Iterator[Finding]:
    """What only makes sense for modules that are compiled here, and what those need."""
    if choice.compiled:
        if gpu.secure_boot and gpu.mok is None:
            message = "modules compiled here are not signed, and would not load under Secure Boot"
            where = "; Ubuntu has modules that it signed" if choice.archive.distribution == "debian" else ""
            hint = f"give gpu.mok, a key that the nodes' firmware knows, or write secure_boot: false{where}"
            yield Finding(("gpu", "secure_boot"), message, hint, (*_RESTS, ("gpu", "mok")))
        return
    for name, given in (("mok", gpu.mok is not None), ("patches", bool(gpu.patches))):
        if given:
            message = f"is for modules that are compiled here, and {choice.archive.distribution} has signed ones"
            yield Finding(("gpu", name), message, "leave it out, or write gpu.dkms: true", _RESTS)


def gpu_warnings(cluster: Cluster) -> Iterator[str]:
    """Lines for a loaded cluster."""
    found = judge(cluster)
    if cluster.gpu is None or not isinstance(found, Choice):
        return
    if cluster.runtime == "docker" and cluster.gpu.repository is None:
        yield (
            "gpu: containers will not have the GPUs: NVIDIA's container toolkit is in no archive of Debian or "
            "Ubuntu; gpu.source: nvidia brings it, with a gpu.repository that has it"
        )
    elif cluster.runtime == "docker":
        yield (
            "gpu.repository: NVIDIA's own archive for Debian 13 had no nvidia-container-toolkit in summer 2026, "
            "and without it `builder lock` stops; an archive of your own may have both"
        )
    if found.compiled and not cluster.gpu.secure_boot:
        yield (
            "gpu: the driver's modules are compiled here and not signed, so they load only with Secure Boot off; "
            "gpu.mok signs them"
        )
    if found.branch.version.startswith("550.") and found.flavour == "open":
        yield "gpu: NVIDIA calls the open modules of 550 for GeForce and workstation cards beta (its README.md)"
