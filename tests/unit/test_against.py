"""Whether a spec would still make a medium, and what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder import inspect, plan
from builder.inspect import Content, against
from builder.lock import Lock, LockedModel
from builder.media import payload
from builder.spec.load import loads
from builder.spec.model import Cluster
from tests.conftest import EXAMPLES
from tests.unit.test_inspect import content, direct, stock


def differs(there: Content, now: plan.Plan) -> tuple[str, ...]:
    return against.differences(inspect.carried(there), against.wanted(now))


def test_a_medium_is_what_its_own_plan_would_make(planned: plan.Plan) -> None:
    assert differs(direct(planned), planned) == ()
    assert against.table("lab.yaml", ()) == "against   lab.yaml: the medium is what it would build now"


def test_the_manifest_of_a_build_is_the_one_that_is_compared(planned: plan.Plan, tmp_path: Path) -> None:
    """What ``wanted`` leaves out is the layers' bytes, and nothing else."""
    (tmp_path / "x").write_bytes(b"layer")
    layers = {layer.file: tmp_path / "x" for layer in planned.layers}
    models = {model.sha256: tmp_path / "x" for model in planned.models}
    built = payload.make(planned, layers, models).manifest
    now = against.wanted(planned).manifest
    assert {key: value for key, value in built.items() if key != "files"} == {
        key: value for key, value in now.items() if key != "files"
    }
    missing = {entry["path"] for entry in built["files"]} - {entry["path"] for entry in now["files"]}
    assert missing == {f"layers/{layer.file}" for layer in planned.layers}


def test_a_foreign_iso_is_not_one_of_ours(planned: plan.Plan) -> None:
    assert differs(content(stock()), planned) == ("it is not a medium that this builder made",)


def respecified(quickstart: Cluster, pins: Lock, old: str, new: str) -> plan.Plan:
    text = (EXAMPLES / "quickstart.yaml").read_text()
    assert old in text
    return plan.make(loads(text.replace(old, new), source="changed", base=EXAMPLES), pins)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10.77.0.12", "10.77.0.13", "node2: address 10.77.0.12 on the medium, 10.77.0.13 now"),
        (
            "10.77.0.12",
            "10.77.0.13",
            "node2: its seed differs: network-config (ethernets.cluster.addresses.0)",
        ),
        ("user: admin", "user: root2", "node1: its seed differs: user-data (users.0.name"),
        ("from: cluster", "from: any", "site: made with other /etc/"),
        ("port: 8080", "port: 8081", "site: made with other /etc/"),
        ("models:\n", "media: {countdown: 9}\nmodels:\n", "media.countdown: 5 on the medium, 9 now"),
        ("52:54:00:77:00:02", "52:54:00:77:00:05", "node2: match mac=52:54:00:77:00:02 on the medium, mac=52:5"),
        (
            "min_size: 4G",
            "min_size: 5G",
            "node1: the largest disk of 4.0 GiB or more on the medium, the largest d",
        ),
        ("name: node2", "name: other", "node2: on the medium, not in the spec"),
        ("name: node2", "name: other", "other: in the spec, not on the medium"),
        ("name: quickstart", "name: lab", "cluster: quickstart on the medium, lab now"),
    ],
)
def test_what_differs_in_the_spec(
    quickstart: Cluster, pins: Lock, planned: plan.Plan, old: str, new: str, said: str
) -> None:
    found = differs(direct(planned), respecified(quickstart, pins, old, new))
    assert found[0].startswith(f"plan: {(planned.id or '')[:12]} on the medium, ")
    assert any(text.startswith(said) for text in found), found


def test_what_differs_in_the_lock(quickstart: Cluster, pins: Lock, planned: plan.Plan) -> None:
    newer = replace(
        pins,
        packages=(replace(pins.packages[0], version="5.3"), replace(pins.packages[1], name="vim")),
        models=(replace(pins.models[0], sha256="f" * 64, size=4096), LockedModel("more", "e" * 64, 1)),
    )
    found = differs(direct(planned), plan.make(quickstart, newer))
    was = planned.models[0].sha256[:12]
    assert set(found[1:]) >= {
        "package bash: 5.2.37-2+b10 on the medium, 5.3 now",
        "package sudo: 1:1.9 on the medium, none now",
        "package vim: none on the medium, 1:1.9 now",
        f"model quickstart.txt: 2.9 KiB, {was} on the medium, 4.0 KiB, ffffffffffff now",
        "model more: in the lock, not on the medium",
    }
    assert "model more: on the medium, not in the lock" in differs(direct(plan.make(quickstart, newer)), planned)


def test_what_differs_in_keys_that_nobody_foresaw(planned: plan.Plan) -> None:
    storage = {**planned_storage(planned), "root": 4 << 30, "layout": "lvm"}
    nodes = [{**node, "autoinstall": "autoinstall/x.json"} for node in against.wanted(planned).manifest["nodes"]]
    found = differs(
        direct(planned, storage=storage, after="poweroff", layers=["layers/node.squashfs"], nodes=nodes), planned
    )
    assert set(found) == {
        "after: poweroff on the medium, reboot now",
        "storage.layout: lvm on the medium, nothing now",
        "storage.root: 4.0 GiB (4,294,967,296 bytes) on the medium, the rest now",
        "layers: node.squashfs on the medium, node.squashfs < node.site.squashfs now",
        "node1: autoinstall: autoinstall/x.json on the medium, nothing now",
        "node2: autoinstall: autoinstall/x.json on the medium, nothing now",
    }


def planned_storage(todo: plan.Plan) -> dict[str, Any]:
    return dict(against.wanted(todo).manifest["storage"])


def test_a_difference_that_a_medium_does_not_list_is_said_to_be_one(
    quickstart: Cluster, pins: Lock, planned: plan.Plan
) -> None:
    """As on media of older builders."""
    found = differs(direct(planned, made_of={}), plan.make(quickstart, replace(pins, epoch=pins.epoch + 1)))
    assert len(found) == 2
    assert "nothing that this medium lists" in found[1]


def test_what_differs_in_what_it_is_made_of(
    quickstart: Cluster, pins: Lock, planned: plan.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = direct(planned)
    later = plan.make(quickstart, replace(pins, epoch=pins.epoch + 1))
    assert differs(there, later)[1:] == ("base: made with other the archive's date",)
    monkeypatch.setattr(plan.Plan, "ours", {**planned.ours, "code": "another"})
    assert differs(there, plan.make(quickstart, pins))[1:] == ("medium: made with other the builder's own code",)


def test_the_table_does_not_run_over(planned: plan.Plan) -> None:
    shown = against.table("lab.yaml", [f"package {number}" for number in range(100)]).splitlines()
    assert len(shown) == 42
    assert shown[-1] == "  … and 60 more; --json has all"
