"""The key ``gpu``: which cards the nodes have. What works with what is in :mod:`builder.gpu`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from builder.spec import types as t
from builder.spec.section import Section


class Mok(Section):
    """The key that signs modules compiled here, for Secure Boot; the nodes' firmware must have been told of it."""

    key: t.LocalPath = Field(
        description="File with the private key (PEM, no passphrase), relative to the spec. It stays on the "
        "building machine.",
        examples=["secrets/mok.key"],
    )
    certificate: t.LocalPath = Field(
        description="File with its certificate (PEM), relative to the spec. Each node has it at "
        "`/usr/share/builder/mok.pem`; [gpu.md](gpu.md#secure-boot) says how a machine learns of it.",
        examples=["secrets/mok.pem"],
    )
    # The certificate, read by the loader; no key of a spec, and in no dump.
    pem: bytes | None = Field(None, exclude=True, repr=False)


class Patch(Section):
    """A change to the source of the driver's modules before they are compiled."""

    path: t.LocalPath = Field(
        description="The patch (`-p1`, from the folder of the modules' source), relative to the spec.",
        examples=["patches/nvidia-550-resize.patch"],
    )
    sha256: t.Sha256 = Field(
        description="Its SHA-256. A file with another one is refused.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    )


class Repository(Section):
    """NVIDIA's own archive for the nodes' release, for `source: nvidia`."""

    url: t.Archive = Field(
        description="Base URL of the archive, which is a flat one.",
        examples=["https://nvidia.example/cuda/repos/debian13/x86_64"],
    )
    key: t.LocalPath = Field(
        description="File with the archive's public key (armoured or not), relative to the spec.",
        examples=["keys/nvidia.asc"],
    )
    fingerprint: t.Fingerprint = Field(
        description="The key's fingerprint, as NVIDIA publishes it. A file with another key is refused.",
        examples=["0123456789ABCDEF0123456789ABCDEF01234567"],
    )
    # What the key's file holds, read by the loader; no key of a spec, and in no dump.
    keyring: bytes | None = Field(None, exclude=True, repr=False)


class Gpu(Section):
    """The nodes' GPUs, and the driver for them. What is left out is chosen by the table, and the lock pins it."""

    vendor: Literal["nvidia"] = Field("nvidia", description="Who made them.", examples=["nvidia"])
    model: t.GpuModel = Field(
        description="Which card, in the table's spelling; [gpu.md](gpu.md) has the list.", examples=["rtx-5070"]
    )
    count: t.GpuCount = Field(1, description="How many of it a node has.", examples=[2])
    driver: t.Driver | None = Field(
        None, description="Driver branch. Default: the newest that the archive has for the card.", examples=["580"]
    )
    modules: Literal["open", "proprietary"] | None = Field(
        None, description="Kernel modules. Default: open ones where they drive the card.", examples=["open"]
    )
    cuda: t.Cuda | None = Field(
        None,
        description="CUDA that engines use: a major, a version, or `none`. Default: the newest major that driver "
        "and card allow.",
        examples=["13", "12.4", "none"],
    )
    install: Literal["none", "runtime", "toolkit"] = Field(
        "none",
        description="Which of the archive's CUDA packages a node gets: `none` suffices for engines that bring "
        "theirs, `runtime` is the libraries, `toolkit` the compiler too.",
        examples=["runtime"],
    )
    secure_boot: bool = Field(
        False,
        description="Whether the modules must load under Secure Boot. Modules that the distribution signed do; "
        "those compiled here need `mok`.",
        examples=[True],
    )
    mok: Mok | None = Field(None, description="Key for modules that are compiled here.")
    dkms: bool = Field(
        False,
        description="Compile the modules here even where the distribution has signed ones. Debian has none.",
        examples=[True],
    )
    patches: tuple[Patch, ...] = Field((), description="Patches for modules that are compiled here.")
    source: Literal["archive", "nvidia"] = Field(
        "archive",
        description="Where the driver comes from: the distribution's archive, or NVIDIA's.",
        examples=["nvidia"],
    )
    repository: Repository | None = Field(None, description="NVIDIA's archive, with `source: nvidia`.")
