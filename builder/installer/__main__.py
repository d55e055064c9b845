"""The recipe: ``python3 -m installer [--payload DIR]``, one line a step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from . import choose, commands, disk, facts, failure, layout, payload, shell, system
from .console import Console, active_ttys
from .model import Disk, File, InstallError, Manifest, Node

TARGET = Path("/run/builder/target")
ESP = Path("/run/builder/esp")


class Install:
    """One installation. ``written`` becomes the disk's path when the first write is about to happen."""

    def __init__(self, console: Console, source: Path | None) -> None:
        self.console = console
        self.source = source
        self.written = ""

    def run(self) -> Manifest:
        """Decide, then write. Raises InstallError at the first thing that is wrong."""
        disk.require(self.console.log)
        # Until `self.written` is set nothing is written to any disk: the payload is ours, the node is known,
        # the disk is chosen, the layout fits, and every file that will be read is whole.
        found = self.find_payload()
        manifest, root = found.manifest, found.root
        node = choose.node(self.console, manifest)
        target = choose.disk(self.console, found, node)
        plan = layout.plan(manifest.storage, target.size, manifest.layer_bytes, manifest.model_sizes)
        files = payload.used_by(manifest, node)
        self.verify_payload(root, files)
        choose.disk_again(self.console, found, node, target)

        self.written = target.path
        volumes = self.prepare_disk(target, plan)
        self.unpack_layers(root, manifest)
        self.mount_rest(volumes)
        system.tables(TARGET, volumes)
        system.identity(TARGET, root, node)
        self.install_boot_loader(target, volumes)
        self.drop_seed(root, node, files)
        self.copy_models(root, manifest)
        self.finish(volumes, manifest, node)
        return manifest

    def find_payload(self) -> payload.Payload:
        """The medium whose manifest is the one that this boot image was built with."""
        self.console.step("payload", "looking for the medium")
        digest = payload.expected_digest()
        given = self.source
        found = payload.load(given, digest) if given else payload.find(digest, log=self.console.log)
        on = ", ".join(sorted(found.devices)) or str(found.root)
        self.console.step("payload", f"{found.manifest.cluster}, plan {found.manifest.plan[:12]}, on {on}")
        return found

    def verify_payload(self, root: Path, files: tuple[File, ...]) -> None:
        """Size and sha256 of every file that will be read."""
        self.console.step("verify", f"{len(files)} files")
        payload.verify(root, files, self.console.progress)

    def prepare_disk(self, target: Disk, plan: layout.Layout) -> disk.Volumes:
        """From here on the disk's old content is gone."""
        log = self.console.log
        self.console.step("partition", target.path)
        disk.clear(target, log)
        disk.partition(target.path, plan, target.sector, log)
        devices = disk.partition_devices(target.path, plan, log)
        volumes = disk.make_file_systems(devices, log)
        disk.mount(volumes.root, TARGET, log)
        return volumes

    def unpack_layers(self, root: Path, manifest: Manifest) -> None:
        """The root file system, lowest layer first."""
        self.console.step("unpack", ", ".join(manifest.layers))
        layers = tuple(root / layer for layer in manifest.layers)
        system.unpack(layers, TARGET, self.console.progress, self.console.log)

    def mount_rest(self, volumes: disk.Volumes) -> None:
        """ESP and models come after the layers, whose owners and modes a vfat could not take."""
        self.console.phase = "partition"
        disk.mount(volumes.esp, TARGET / "boot/efi", self.console.log)
        if volumes.models:
            disk.mount(volumes.models, TARGET / system.MODELS, self.console.log)

    def install_boot_loader(self, target: Disk, volumes: disk.Volumes) -> None:
        """GRUB on the disk and on the ESP."""
        self.console.step("bootloader", "GRUB for BIOS and UEFI")
        system.boot_loader(TARGET, target.path, target.sector, volumes, self.console.log)

    def drop_seed(self, root: Path, node: Node, files: tuple[File, ...]) -> None:
        """What makes this node differ from the others."""
        self.console.step("seed", node.seed)
        system.seed(TARGET, root, node, files)

    def copy_models(self, root: Path, manifest: Manifest) -> None:
        """The model files, verified as they are copied."""
        names = dict.fromkeys(model.name.partition("/")[0] for model in manifest.models)
        self.console.step("models", ", ".join(names) or "none")
        system.models(TARGET, root, manifest, self.console.progress)

    def finish(self, volumes: disk.Volumes, manifest: Manifest, node: Node) -> None:
        """Let go of everything, and only then write the marker: a power cut before leaves no marker, and one
        after finds file systems that are clean."""
        log = self.console.log
        self.console.step("done", "writing everything out")
        system.keep_log(TARGET, self.console.log_path)
        disk.unmount(TARGET, log)
        for volume in filter(None, (volumes.models, volumes.root)):
            disk.release(volume.path)
            disk.check_clean(volume.path)
        disk.mount(volumes.esp, ESP, log)
        system.marker(ESP, manifest.plan)
        disk.unmount(ESP, log)
        disk.release(volumes.esp.path)
        disk.release(self.written)
        payload.release(log)
        self.console.say(f"builder-installed {node.name} {manifest.plan}")


def main(arguments: list[str]) -> int:
    """Install, then reboot or power off; on any failure say why and stay."""
    os.umask(0o022)
    console = Console(active_ttys())
    source = Path(arguments[1]) if arguments[:1] == ["--payload"] and len(arguments) == 2 else None
    if arguments and source is None:
        console.say("usage: python3 -m installer [--payload DIR]")
        return 2
    mode = facts.kernel_argument("builder.mode") or "install"
    console.step("start", mode)
    if mode == "rescue":
        console.say(failure.machine(console))
        shell.wait_forever(console, at_once=True)
    install = Install(console, source)
    try:
        manifest = install.run()
    except Exception as error:
        fail(install, error)
        shell.wait_forever(console)
        return 1
    leave(manifest.after, console)
    return 0


def fail(install: Install, error: Exception) -> None:
    """Say what went wrong, whether a disk was touched, and what the machine is."""
    failure.say(install.console, error, install.written)
    install.console.say(failure.machine(install.console))
    os.sync()


def leave(after: str, console: Console) -> None:
    """Reboot or power off. There is no init to ask, so busybox calls the kernel.

    Returning would let the boot script start the installer again, so it stays when the machine does not go.
    """
    action = "poweroff" if after == "poweroff" else "reboot"
    os.sync()
    try:
        commands.run(["busybox", action, "-f"], step=action, log=console.log)
        time.sleep(60)
    except InstallError as error:
        console.say(f"The install is complete; please {action} by hand: {error.reason}")
    shell.wait_forever(console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
