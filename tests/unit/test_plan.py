"""The plan: pure, complete, and named by everything that matters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder import lock, nodefacts, plan
from builder.errors import BuilderError, Exit
from builder.layers import base
from builder.lock import Lock, LockedModel
from builder.media import bootkit, iso, payload
from builder.media.bootkit import BootKit
from builder.spec.load import loads
from builder.spec.model import Cluster
from tests.conftest import SHA


def test_rendered_files(planned: plan.Plan, golden: Callable[[str, str], None]) -> None:
    for path, content in planned.files("node1").items():
        if path.startswith("/usr/"):
            continue  # programs, which are the same for every spec
        golden(f"quickstart/node1{path}", content.decode())


def test_the_menu(planned: plan.Plan, golden: Callable[[str, str], None]) -> None:
    # The plan's id covers our own code, so it changes with every edit; the menu's text does not.
    golden("quickstart/grub.cfg", iso.menu(planned).replace(planned.id or "?", "PLAN-ID"))


def test_command_lines(planned: plan.Plan, golden: Callable[[str, str], None]) -> None:
    kit = BootKit(Path("/kit"))
    files = {"/builder/manifest.json": Path("/made/a=b"), "/boot/vmlinuz": kit["vmlinuz"]}
    esp = iso.esp_argvs(kit, Path("/made/early.cfg"), Path("/made/esp.img"), SHA)
    image = iso.xorriso_argv(SHA, "QUICKSTART", 1_700_000_000, kit, Path("/made/esp.img"), files, Path("/out.iso"))
    root = base.argv("trixie", ["bash", "sudo"], Path("/made"), mode="root")
    lines = ["\n  ".join(str(word) for word in argv) for argv in (*esp, image, root)]
    golden("command-lines.txt", "\n".join(lines) + "\n")


def test_the_manifest(planned: plan.Plan, golden: Callable[[str, str], None]) -> None:
    manifest = payload.manifest(planned, [{"path": "layers/node.squashfs", "size": 1, "sha256": SHA}])
    manifest["plan"] = "PLAN-ID"
    made_of = manifest.pop("made_of")  # covers our own code, too
    assert set(made_of) == {"base", "site", "medium"} and "/etc/nftables.conf" in made_of["site"]
    golden("quickstart/manifest.json", json.dumps(manifest, indent=1) + "\n")


def test_same_input_same_id(quickstart: Cluster, pins: Lock) -> None:
    assert plan.make(quickstart, pins).id == plan.make(quickstart, pins).id
    assert re.fullmatch(r"[0-9a-f]{64}", plan.make(quickstart, pins).id or "")


@pytest.mark.parametrize(
    ("old", "new", "site_changes"),
    [
        ("port: 8080", "port: 8081", True),
        ("10.77.0.11", "10.77.0.13", True),
        ("min_size: 4G", "min_size: 5G", False),
        ("name: node2", "name: other", True),
    ],
)
def test_a_change_rebuilds_what_it_touches_and_renames_the_plan(
    quickstart: Cluster, pins: Lock, old: str, new: str, site_changes: bool
) -> None:
    examples = Path(__file__).parents[2] / "examples"
    text = (examples / "quickstart.yaml").read_text()
    assert old in text
    before = plan.make(quickstart, pins)
    after = plan.make(loads(text.replace(old, new), source="changed", base=examples), pins)
    assert after.id != before.id
    assert after.base.digest == before.base.digest
    assert (after.layers[-1].digest != before.layers[-1].digest) == site_changes


def test_a_package_rebuilds_the_base(quickstart: Cluster, pins: Lock) -> None:
    newer = replace(pins, packages=(replace(pins.packages[0], sha256="f" * 64), pins.packages[1]))
    assert plan.make(quickstart, newer).base.digest != plan.make(quickstart, pins).base.digest


def test_without_a_lock_there_is_no_id(quickstart: Cluster) -> None:
    assert plan.make(quickstart, None).id is None


def test_layers_stack_by_name(planned: plan.Plan) -> None:
    """Ubuntu's installer stacks a.b.squashfs over a.squashfs (fsimage-layered)."""
    assert [layer.file for layer in planned.layers] == ["node.squashfs", "node.site.squashfs"]


def test_a_fitting_models_partition_holds_the_models(quickstart: Cluster) -> None:
    models = (LockedModel("big", SHA, 40 << 30),)
    size = nodefacts.storage(quickstart, models)["models"]
    assert size is not None and size > 40 << 30
    assert nodefacts.storage(quickstart, ())["models"] == 0


def test_the_installer_menu_never_installs_twice_by_itself(planned: plan.Plan) -> None:
    menu = iso.menu(planned)
    assert f"/EFI/builder/{planned.id}" in menu
    assert menu.index("set default=install") < menu.index("set default=disk") < menu.index("menuentry")


def test_a_lock_of_another_spec_is_refused(quickstart: Cluster, pins: Lock, tmp_path: Path) -> None:
    other = replace(pins, asks={**pins.asks, "release": "bookworm", "packages": [*pins.asks["packages"], "htop"]})
    with pytest.raises(BuilderError) as caught:
        lock.require_belongs(other, quickstart, tmp_path / "x.lock")
    assert caught.value.code == Exit.SPEC
    assert "release: 'bookworm' in the lock, 'trixie' in the spec" in caught.value.message
    assert "-htop" in caught.value.message
    assert "lock --update" in caught.value.hint


def test_a_lock_survives_being_saved(pins: Lock, tmp_path: Path) -> None:
    lock.save(pins, tmp_path / "x.lock")
    assert lock.load(tmp_path / "x.lock") == pins


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_damaged_lock_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(text)
    with pytest.raises(BuilderError, match=r"x\.lock") as caught:
        lock.load(path)
    assert caught.value.code == Exit.SPEC


def test_an_unknown_release_names_the_known(quickstart: Cluster) -> None:
    odd = quickstart.model_copy(
        update={"distribution": quickstart.distribution.model_copy(update={"release": "99"})}
    )
    with pytest.raises(BuilderError) as caught:
        plan.make(odd, None)
    assert caught.value.code == Exit.SPEC
    assert '"13" (trixie)' in caught.value.hint


def test_early_menu_finds_the_medium() -> None:
    assert "search --no-floppy --set=root --file /builder/manifest.json" in bootkit.early_menu()
