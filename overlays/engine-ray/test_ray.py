"""Checks of Ray on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

import pytest

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
ENGINE = FACTS["engine"]
HEAD = FACTS["name"] == ENGINE["head"]


def test_ray_runs_and_is_not_root(host):
    assert host.service("ray").is_running
    pid = host.check_output("systemctl show --property MainPID --value ray")
    assert int(host.check_output(f"stat --format %u /proc/{pid}")) >= 1000


def test_only_the_head_is_one(host):
    for port in (ENGINE["port"], ENGINE["dashboard"]["port"]):
        assert (host.check_output(f"ss -tlnH '( sport = :{port} )'") != "") == HEAD


@pytest.mark.skipif(not HEAD, reason="a worker without its head has no door yet")
def test_every_port_is_where_the_spec_says(host):
    for port in ENGINE["ports"].values():
        assert host.check_output(f"ss -tlnH '( sport = :{port} )'"), port


def test_vllm_runs_only_where_it_is_asked_for(host):
    if not ENGINE["vllm"]:
        assert not host.service("ray-vllm").is_running


def test_the_programs_stay_in_their_root(host):
    assert host.file(f"{ENGINE['prefix']}/usr/local/bin/ray").exists
    assert not host.file("/usr/local/bin/ray").exists
