"""A node's own cloud-init takes the live system's seed from the control service, by the kernel's command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from builder import autoinstall, build, inputs, plan, sandbox
from builder.cache import Cache, default_root
from builder.layers import base
from builder.netboot import configs, control, tree
from builder.netboot.control import Control
from builder.netboot.live import Live
from builder.netboot.store import Store
from builder.run import run
from builder.spec.load import load
from tests import sites
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.tools
CARD = "52:54:00:77:00:01"
READ = """
import json
from cloudinit import helpers
from cloudinit.sources.DataSourceNoCloud import DataSourceNoCloudNet
found = DataSourceNoCloudNet({"datasource": {}}, None, helpers.Paths({"cloud_dir": "/tmp/c", "run_dir": "/tmp/r"}))
got, user = bool(found.get_data()), found.get_userdata_raw()
print(json.dumps([got, str(found), found.metadata, user.decode() if got else ""]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The quickstart's base layer, unpacked."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    spec, cache = tmp_path / "examples/quickstart.yaml", Cache(default_root())
    with cache.locked():
        todo = plan.make(load(spec), build.locked(load(spec), spec, cache))
        layer = base.make(todo, inputs.packages(todo, cache), cache)
        yield sandbox.tree(layer, todo.base.digest, cache)


def test_the_seed_of_an_order_is_found(root: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((EXAMPLES / "quickstart.yaml").read_text())
    raw |= {"distribution": {"name": "ubuntu", "release": "24.04"}, "media": {"installer": "subiquity"}}
    (tmp_path / "examples/ubuntu.yaml").write_text(yaml.safe_dump(raw))
    cluster = load(tmp_path / "examples/ubuntu.yaml")
    site = sites.site_of(
        cluster, tmp_path, address="127.0.0.1", control_port=18481, live=Live("quickstart.iso", 1)
    )
    site.tree.seed.mkdir(parents=True)
    for name in tree.SEED:
        (site.tree.seed / name).write_bytes(autoinstall.live_seed(cluster)[name])
    service = Control(site, Store(tmp_path / "state.json", ["node1", "node2"]), "token", lambda _line: None)

    def read(word: str) -> tuple[bool, str, dict[str, str], str]:
        line = " ".join(configs.kernel_arguments(site, word, CARD))
        argv: list[str | Path] = ["bwrap", "--ro-bind", root, "/", "--dev", "/dev", "--proc", "/proc"]
        argv += ["--tmpfs", "/tmp", "--tmpfs", "/run", "--setenv", "DEBUG_PROC_CMDLINE", line]
        done = run([*argv, "python3", "-B", "-c", READ], step="cloud-init")
        found: tuple[bool, str, dict[str, str], str] = tuple(json.loads(done.stdout.splitlines()[-1]))
        return found

    with control.listening(service):
        service.order(["node1"])
        word = service.store.state.nodes["node1"].order
        got, name, meta, user = read(word)
        url = f"{site.control}/v1/seed/{word}/"
        assert got and name == f"DataSourceNoCloudNet [seed=cmdline,{url}]"
        assert meta["instance-id"] == "quickstart-live"
        assert yaml.safe_load(user)["autoinstall"] == autoinstall.bootstrap(cluster)
