"""Checks of Docker on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

import pytest

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
IMAGES = FACTS["images"]


def test_docker_is_up(host):
    for unit in ("docker", "builder-images"):
        assert host.service(unit).is_running, host.check_output(f"systemctl status --no-pager {unit}")


def test_every_image_is_the_lock_s(host):
    for image in IMAGES:
        assert host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {image['name']}") == image["id"]


@pytest.mark.skipif(not IMAGES, reason="the spec has no images")
def test_a_container_runs_without_any_network(host):
    """Of the first image: created, started by containerd and runc, confined, and gone again."""
    name = IMAGES[0]["name"]
    made = host.check_output(f"docker container create --network none {name}")
    try:
        host.check_output(f"docker container start --attach {made}")
        if host.run("aa-enabled --quiet").rc == 0:
            shown = host.check_output(f"docker container inspect --format '{{{{.AppArmorProfile}}}}' {made}")
            assert shown == "docker-default"
    finally:
        host.check_output(f"docker container rm --force {made}")


def test_an_image_that_was_removed_comes_back(host):
    for image in IMAGES[:1]:
        host.check_output(f"docker image rm --force {image['name']}")
        host.check_output("systemctl restart builder-images")
        assert host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {image['name']}") == image["id"]


@pytest.mark.skipif(not FACTS["gpu"], reason="the spec has no GPUs")
def test_docker_knows_nvidia_s_runtime_where_the_toolkit_is(host):
    there = host.exists("nvidia-container-runtime")
    assert ("nvidia" in json.loads(host.check_output("docker info --format '{{json .Runtimes}}'"))) == there


def test_docker_leaves_the_firewall_alone(host):
    """A published port would be open to everybody: Docker's own rules go past the input chain."""
    tables = {
        item["table"]["name"]
        for item in json.loads(host.check_output("nft --json list ruleset"))["nftables"]
        if "table" in item
    }
    assert tables == {"builder"}
    assert not host.interface("docker0").exists
    assert host.sysctl("net.ipv4.ip_forward") == 0
