"""What exo runs in on a node: its environment, and what of the driver it needs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.engines.exo.making import PYTHON
from builder.engines.exo.versions import Gpu
from builder.engines.kind import HOME

if TYPE_CHECKING:
    from builder.spec.model import Cluster


def environment(gpu: Gpu | None) -> dict[str, str]:
    """What exo reads of its surroundings on every node (shared/constants.py), and MLX."""
    found = {
        "EXO_OFFLINE": "true",  # "1" would do nothing (main.py)
        "EXO_MODELS_READ_ONLY_DIRS": "/srv/models",
        "EXO_RESOURCES_DIR": f"{HOME}/resources",
        "EXO_DASHBOARD_DIR": f"{HOME}/dashboard/build",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
        # Its network's threads wait for Python's lock; with one processor there is one, and peers wait.
        "TOKIO_WORKER_THREADS": "4",
    }
    if gpu is None:
        return {**found, "MLX_DISABLE_COMPILE": "1"}  # on processors it would call a C++ compiler at run time
    site = f"{HOME}/lib/python{PYTHON}/site-packages"
    headers = {"CUDA_HOME": f"{site}/{gpu.headers_in}"} if gpu.headers_in else {}
    return {**found, **headers, "MLX_PTX_CACHE_DIR": "/var/lib/exo/cache/ptx"}


def on_gpu(_cluster: Cluster) -> str:
    """MLX, in exo's own surroundings: those of the running service, driver's libraries included."""
    program = "import mlx.core as mx; mx.set_default_device(mx.gpu); "
    program += "x = mx.random.normal((512, 512)); print((x @ x).sum().item(), mx.default_device())"
    inside = f'{HOME}/bin/python -c "{program}"'
    pid = "$(systemctl show --property MainPID --value exo.service)"
    return f"nsenter --target {pid} --mount --root --env {inside}"
