"""What subiquity does with an autoinstall document from where it looks at the disks, with a real curtin.

As its server/controllers/install.py (curtin_install, postinstall) and models/{storage,subiquity,network}.py have
it, for a document whose storage is a list of actions: find the disk of each match and the offset of each
partition; have curtin partition, extract and configure; write what cloud-init is to do at first boot.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

MIB = 1 << 20
LUKS_OVERHEAD, LVM_OVERHEAD, EXTENT = 16 * MIB, MIB, 4 * MIB  # as subiquity reckons
KEY = Path("/run/live/luks-key")
TARGET = Path("/target")
CONFIGURED, TREE = Path("/run/live/configured"), Path("/run/live/tree")
CONFIG = Path("/run/live/curtin.conf")
CURTIN = Path(__file__).with_name("curtin")
STAGES = ("partitioning", "extract", "curthooks")


def main() -> None:
    document = yaml.safe_load(Path("/autoinstall.yaml").read_text())
    be_a_live_system()
    configure_apt(mount_source(document["source"]["id"]), document["apt"])
    CONFIG.write_text(json.dumps(configuration(document)))
    argv = ["python3", "-m", "curtin", "--showtrace", "-vvv", "-c", str(CONFIG), "install"]
    argv += ["--set", f"json:stages={json.dumps(STAGES)}", f"cp://{TREE}"]
    watch(argv)
    deconfigure_apt()
    for path, (text, mode) in first_boot(document).items():
        (TARGET / path).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / path).write_text(text)
        (TARGET / path).chmod(mode)


def be_a_live_system() -> None:
    """curtin lends the target its name servers; here nothing has written any."""
    servers = Path("/etc/resolv.conf").resolve()
    servers.parent.mkdir(parents=True, exist_ok=True)
    servers.touch()


def watch(argv: list[str]) -> None:
    """Run curtin. What begins and ends is shown on the serial console, as subiquity shows it; all is logged."""
    environment = {**os.environ, "PYTHONPATH": str(CURTIN)}
    with (
        subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        Path("/dev/ttyS0").open("w") as serial,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(("start: ", "finish: ")):
                print(line.rstrip(), file=serial, flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv[:3])


def mount_source(name: str) -> list[Path]:
    """Mount the catalogue's entry: the layers that the dots in its file name tell, the lowest first."""
    catalogue = yaml.safe_load(Path("/cdrom/casper/install-sources.yaml").read_text())
    entries = catalogue["sources"] if isinstance(catalogue, dict) else catalogue
    (entry,) = (entry for entry in entries if entry["id"] == name)
    if entry["type"] != "fsimage-layered":
        raise ValueError(entry["type"])
    words = entry["path"].removesuffix(".squashfs").split(".")
    points = []
    for count in range(1, len(words) + 1):
        point = Path(f"/run/live/layer{count}")
        point.mkdir(parents=True)
        layer = f"/cdrom/casper/{'.'.join(words[:count])}.squashfs"
        subprocess.run(["mount", "-t", "squashfs", "-o", "ro,loop", layer, point], check=True)
        points.append(point)
    return points


def overlay(layers: list[Path], tree: Path) -> Path:
    """Mount layers over one another, writable; returns the folder of what is written."""
    upper, work = tree.with_suffix(".upper"), tree.with_suffix(".work")
    for folder in (tree, upper, work):
        folder.mkdir(parents=True)
    lower = ":".join(str(layer) for layer in reversed(layers))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", tree], check=True)
    return upper


def configure_apt(layers: list[Path], section: dict[str, Any]) -> None:
    """As server/apt.py of 26.04.1 has it without a network: curtin configures apt for the node
    (apply_apt_config); and what is then copied knows the medium alone, whose packages apt has to find sound
    (configure_for_install)."""
    upper = overlay(layers, CONFIGURED)
    keys = ("preserve_sources_list", "disable_components")
    CONFIG.write_text(json.dumps({"apt": {key: section[key] for key in keys}}))
    watch(
        ["python3", "-m", "curtin", "--showtrace", "-vvv", "-c", str(CONFIG), "apt-config", "-t", str(CONFIGURED)]
    )
    overlay([*layers, upper], TREE)
    (TREE / "cdrom").mkdir()
    apt = TREE / "etc/apt"
    for path in (apt / "sources.list", *apt.glob("sources.list.d/*.list"), *apt.glob("sources.list.d/*.sources")):
        if path.name != "cdrom.sources":
            path.unlink(missing_ok=True)
    if not (apt / "sources.list.d/cdrom.sources").exists():
        (apt / "sources.list").write_text("deb [check-date=no] file:///cdrom noble main restricted\n")
    shutil.rmtree(TREE / "var/lib/apt/lists")
    for name in ("cdrom", "dev"):
        subprocess.run(["mount", "--bind", f"/{name}", TREE / name], check=True)
    subprocess.run(["chroot", TREE, "apt-get", "update"], check=True)
    subprocess.run(["umount", TREE / "dev", TREE / "cdrom"], check=True)


def deconfigure_apt() -> None:
    """As server/apt.py of 26.04.1 has it without a network: what was configured is put back; of cdrom.sources
    24.04 leaves it at that."""
    for path in ("etc/apt/sources.list", "etc/apt/sources.list.d/cdrom.sources"):
        shutil.copyfile(CONFIGURED / path, TARGET / path)
    lists = "var/lib/apt/lists"
    shutil.rmtree(TARGET / lists)
    subprocess.run(["rsync", "-a", f"{CONFIGURED / lists}/", TARGET / lists], check=True)


def configuration(document: dict[str, Any]) -> dict[str, Any]:
    """curtin's configuration of the whole install."""
    storage = document["storage"]
    logs = "/var/log/installer"
    return {
        "storage": {"version": storage_version(), "config": actions(storage["config"])},
        "reporting": {"builtin": {"type": "print"}},
        "swap": storage.get("swap", {}),
        "grub": storage.get("grub", {}),
        # As 26.04 has it (24.04 may say null); where the node has hooks, it does not count.
        "kernel": {"package": "linux-image-amd64", "remove": "existing"},
        "install": {
            "target": str(TARGET),
            "unmount": "disabled",
            "save_install_config": False,
            "save_install_log": False,
            "log_file": f"{logs}/curtin-install.log",
            "log_file_append": True,
            "error_tarfile": f"{logs}/curtin-errors.tar",
        },
        "write_files": {
            "etc_machine_id": {
                "path": "etc/machine-id",
                "content": Path("/etc/machine-id").read_text(),
                "permissions": 0o444,
            },
            "etc_netplan_installer": {
                "path": "etc/cloud/cloud.cfg.d/90-installer-network.cfg",
                "content": yaml.dump({"network": document["network"]}),
                "permissions": "0600",
            },
        },
    }


def storage_version() -> int:
    words = Path("/proc/cmdline").read_text().split()
    return 2 if "subiquity-storage-version=2" in words else 1


def actions(config: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The actions with the disk that their match finds, the place of every partition, the size of what takes the
    rest, and the passphrase in a file (models/filesystem.py: apply_autoinstall_config, DM_Crypt)."""
    done: list[dict[str, Any]] = []
    sizes: dict[str, int] = {}  # of what holds others, and what is left of it
    at = MIB
    for action in config:
        action = dict(action)
        match action["type"]:
            case "disk":
                (action["path"],) = action.pop("match").values()
                name = Path(action["path"]).name
                sizes[action["id"]] = int(Path(f"/sys/class/block/{name}/size").read_text()) * 512
            case "partition":
                rest = sizes[action["device"]] // MIB * MIB - MIB - at
                sizes[action["id"]] = action["size"] = rest if action["size"] == -1 else action["size"]
                action["offset"] = at
                at += action["size"]
            case "dm_crypt":
                sizes[action["id"]] = sizes[action["volume"]] - LUKS_OVERHEAD
                action |= {"keyfile": str(KEY), "recovery_keyfile": None}
                KEY.touch(mode=0o600)
                KEY.write_text(action.pop("key"))
            case "lvm_volgroup":
                sizes[action["id"]] = sum(
                    (sizes[device] - LVM_OVERHEAD) // EXTENT * EXTENT for device in action["devices"]
                )
            case "lvm_partition":
                size = sizes[action["volgroup"]] if action["size"] == -1 else action["size"]
                sizes[action["volgroup"]] -= size
                action["size"] = f"{size}B"
        done.append(action)
    return done


def first_boot(document: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Path below the target → content and mode of what subiquity leaves for cloud-init."""
    growth = {"growpart": {"mode": "off"}, "resize_rootfs": False}
    disabled = {"path": "/etc/cloud/cloud-init.disabled", "defer": True, "content": "Disabled\n"}
    user_data = {**growth, **document["user-data"], "write_files": [disabled]}
    raw = "#cloud-config\n" + yaml.dump(user_data)
    none = {"None": {"userdata_raw": raw, "metadata": {"instance-id": "installed-by-subiquity"}}}
    grub_dpkg = {"grub_dpkg": {"enabled": False}}
    only = {"datasource_list": ["None"], "datasource": none}
    return {
        "etc/cloud/cloud.cfg.d/20-disable-cc-dpkg-grub.cfg": (yaml.dump(grub_dpkg), 0o644),
        "etc/cloud/cloud.cfg.d/99-installer.cfg": (yaml.dump(only, default_flow_style=None), 0o600),
        "etc/cloud/ds-identify.cfg": ("policy: enabled\n", 0o644),
        "etc/cloud/clean.d/99-installer": ("#!/bin/sh\n", 0o755),
    }


if __name__ == "__main__":
    main()
