"""Checks of Dask on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
ENGINE = FACTS["engine"]
HEAD = FACTS["name"] == ENGINE["head"]


def test_only_the_head_has_a_scheduler(host):
    assert host.service("dask-scheduler").is_running == HEAD
    assert host.socket(f"tcp://{FACTS['address']}:{ENGINE['scheduler']['port']}").is_listening == HEAD


def test_the_worker_runs_and_is_not_root(host):
    """A worker that waits for its scheduler listens already."""
    assert host.service("dask-worker").is_running
    pid = host.check_output("systemctl show --property MainPID --value dask-worker")
    assert int(host.check_output(f"stat --format %u /proc/{pid}")) >= 1000


def test_the_programs_stay_in_their_root(host):
    assert host.file(f"{ENGINE['prefix']}/usr/local/bin/dask").exists
    assert not host.file("/usr/local/bin/dask").exists
