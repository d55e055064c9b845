"""llama.cpp where the nodes have GPUs: its CUDA backend, and what its units may do for it."""

from __future__ import annotations

import pytest

from builder import engines, plan
from builder.spec.load import loads
from builder.spec.model import Cluster

HEAD = """\
name: demo
network: {subnet: 10.77.0.0/24, gateway: 10.77.0.1}
nodes: [{name: node1, match: {mac: "52:54:00:77:00:01"}, address: 10.77.0.11}]
models: [{name: a.gguf, url: "https://h.example/a.gguf"}]
engine: llamacpp
"""
UBUNTU = 'distribution: {name: ubuntu, release: "24.04"}\n'
UNITS = tuple(f"/etc/systemd/system/llamacpp-{name}.service" for name in ("server", "rpc"))


def part(cluster: Cluster) -> tuple[str, bool]:
    found = engines.of(cluster).part(cluster)
    assert found is not None
    return found.release, "libggml0-backend-cuda" in found.names


@pytest.mark.parametrize(
    ("more", "release", "backend"),
    [
        ("", "forky", False),
        ("gpu: {model: rtx-3090}\n", "sid", True),
        ("gpu: {model: rtx-3090, cuda: none}\n", "forky", False),
        (UBUNTU + "gpu: {model: rtx-5070}\n", "sid", True),
    ],
)
def test_the_backend_comes_with_the_gpus(more: str, release: str, backend: bool) -> None:
    cluster = loads(HEAD + more)
    assert part(cluster) == (release, backend)
    files = plan.make(cluster, None).files("node1")
    for unit in UNITS:
        text = files[unit].decode()
        assert ("DeviceAllow=char-nvidia rw" in text) == backend
        assert ("-/usr/lib/x86_64-linux-gnu/libcuda.so.1" in text) == backend
        assert ("After=nvidia-persistenced.service" in text) == backend
        # What a unit loses for CUDA, it loses for CUDA only.
        assert ("PrivateDevices=yes" in text) != backend
        assert ("MemoryDenyWriteExecute=yes" in text) != backend


def test_a_card_that_is_younger_than_the_backend_is_told_of() -> None:
    young, old = loads(HEAD + UBUNTU + "gpu: {model: rtx-5070}\n"), loads(HEAD + "gpu: {model: rtx-3090}\n")
    (line,) = engines.of(young).advice(young)
    assert line.startswith(
        "llama.cpp's CUDA backend is made for CUDA 12.4, which has no code for the GeForce RTX 5070"
    )
    assert engines.of(old).advice(old) == ()


def test_a_real_node_is_asked_for_its_devices() -> None:
    with_gpu, without = loads(HEAD + "gpu: {model: rtx-3090}\n"), loads(HEAD)
    assert "llama-server --list-devices | grep CUDA" in (engines.of(with_gpu).on_gpu(with_gpu) or "")
    assert engines.of(without).on_gpu(without) is None
