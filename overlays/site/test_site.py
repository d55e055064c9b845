"""Checks of the site layer on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

import pytest

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())


def test_the_name_is_the_spec_s(host):
    assert host.check_output("hostname") == FACTS["name"]


def test_the_address_is_the_spec_s(host):
    if FACTS["address"] == "dhcp":
        pytest.skip("this node takes its address by DHCP")
    shown = json.loads(host.check_output("ip -json -4 address show scope global"))
    assert FACTS["address"] in [info["local"] for link in shown for info in link["addr_info"]]


def test_the_firewall_denies_by_default(host):
    ruleset = json.loads(host.check_output("nft --json list ruleset"))["nftables"]
    policy = {item["chain"]["name"]: item["chain"]["policy"] for item in ruleset if "chain" in item}
    assert policy == {"input": "drop", "forward": "drop"}


def test_the_firewall_opens_exactly_the_spec_s_ports(host):
    text = host.check_output("nft --stateless list chain inet builder input")
    opened = {
        line.strip().split(" accept")[0] for line in text.splitlines() if "dport" in line and "67" not in line
    }
    assert opened == set(FACTS["openings"])


def test_the_account_is_the_spec_s(host):
    user = host.user(FACTS["user"])
    assert user.exists
    assert "sudo" in user.groups
    assert host.check_output(f"sudo -u {FACTS['user']} sudo -n id -u") == "0"


def test_only_the_spec_s_keys_are_authorized(host):
    path = f"{host.user(FACTS['user']).home}/.ssh/authorized_keys"
    keys = host.file(path).content_string.split("\n") if host.file(path).exists else []
    assert [key for key in keys if key and not key.startswith("#")] == FACTS["ssh_keys"]


def test_ssh_takes_no_password(host):
    effective = host.check_output("sshd -T")
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective


def test_the_models_are_there_and_whole(host):
    for model in FACTS["models"]:
        file = host.file(f"/srv/models/{model['name']}")
        assert file.size == model["size"]
        assert file.sha256sum == model["sha256"]


def test_the_models_cannot_be_changed(host):
    if not FACTS["models"]:
        pytest.skip("the spec has no models")
    assert "ro" in host.mount_point("/srv/models").options
    assert host.run("touch /srv/models/x").rc != 0


def test_our_units_are_up(host):
    for unit in ("builder-models", "builder-ready", "nftables"):
        assert host.service(unit).is_running, host.check_output(f"systemctl status --no-pager {unit}")


def test_the_node_knows_what_it_was_made_from(host):
    manifest = host.file("/usr/share/builder/manifest.json").content_string
    assert json.loads(manifest)["cluster"] == FACTS["cluster"]
    assert host.file("/etc/builder/node").content_string.strip() == FACTS["name"]
