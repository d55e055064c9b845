"""Checks of the exo engine on a booted node, over ssh by testinfra."""

import json
import os
from pathlib import Path

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
ENGINE = FACTS["engine"]
MASTER = FACTS["name"] == ENGINE["master"]
NAMESPACE = "/etc/exo/namespace"


def test_exo_runs_and_is_not_root(host):
    assert host.service("exo").is_running
    listening = host.socket(f"tcp://0.0.0.0:{ENGINE['api']['port']}")
    assert listening.is_listening
    pid = host.check_output("systemctl show --property MainPID --value exo")
    assert host.check_output(f"stat --format %u /proc/{pid}") != "0"


def test_the_master_alone_places_the_model(host):
    assert host.service("exo-place").is_running == MASTER


def test_nobody_but_root_reads_the_namespace_and_no_log_has_it(host):
    if not ENGINE["namespace_variable"]:
        return
    file = host.file(NAMESPACE)
    assert (file.user, file.mode) == ("root", 0o600)
    found = host.run(
        f"journalctl --boot --no-pager --output cat | grep --count --fixed-strings --file {NAMESPACE}"
    )
    assert found.stdout.strip() == "0"
    logs = host.run(
        f"grep --recursive --files-with-matches --fixed-strings --file {NAMESPACE} /var/lib/private/exo"
    )
    assert logs.stdout.strip() == ""


def test_the_image_brought_no_identity(host):
    """What exo keeps is this node's own, made since it booted."""
    for name in ("config/exo/node_id.keypair", "cache/exo/node_zid"):
        assert not host.file(f"/opt/exo/var/lib/exo/{name}").exists


def test_the_model_is_complete_and_nothing_was_downloaded(host):
    if not ENGINE["model"]:
        return
    url = f"http://127.0.0.1:{ENGINE['api']['port']}/state/downloads"
    program = f"from urllib.request import urlopen; print(urlopen('{url}', timeout=60).read().decode())"
    downloads = json.loads(host.check_output(f'python3 -c "{program}"'))
    assert downloads
    for node in downloads.values():
        kinds = {}
        for tagged in node:
            ((kind, body),) = tagged.items()
            (shard,) = body["shardMetadata"].values()
            kinds[shard["modelCard"]["modelId"]] = (kind, body.get("readOnly"))
        assert kinds[ENGINE["model"]] == ("DownloadCompleted", True)
        assert "DownloadOngoing" not in {kind for kind, _ in kinds.values()}
    assert host.run("ls /var/lib/private/exo/data/exo/models").stdout.replace("caches", "").strip() == ""
