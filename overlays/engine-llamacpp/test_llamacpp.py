"""Checks of the llama.cpp engine on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

import pytest

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
ENGINE = FACTS["engine"]
HEAD = FACTS["name"] == ENGINE["head"]


def test_only_the_role_of_this_node_runs(host):
    assert host.service("llamacpp-rpc").is_running == (not HEAD)
    assert host.socket(f"tcp://0.0.0.0:{ENGINE['rpc']['port']}").is_listening == (not HEAD)


@pytest.mark.skipif(HEAD, reason="the head's server needs its workers; the cluster test looks at it")
def test_the_worker_is_not_root(host):
    (worker,) = host.process.filter(comm="ggml-rpc-server")
    assert worker.user != "root"
    # The program itself is out of the network's reach; systemd's socket is what the head connects to.
    assert host.socket(f"tcp://127.0.0.1:{ENGINE['rpc']['port'] + 1}").is_listening


def test_the_programs_of_the_other_release_stay_in_their_root(host):
    assert host.file(f"{ENGINE['prefix']}/usr/bin/llama-server").exists
    assert not host.file("/usr/bin/llama-server").exists
