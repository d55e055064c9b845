"""The recipe: ``python3 -m installer [--payload DIR]``, one line a step."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from . import carried, choose, commands, disk, facts, failure, keep, layout, net, payload, shell, system
from .carried import ESP
from .console import Console, active_ttys
from .listener import Nobody
from .model import Disk, File, InstallError, Manifest, Node
from .source import Medium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .source import Source

TARGET = Path("/run/builder/target")
STAGING = TARGET / ".builder-layers"


class Install:
    """One installation. ``written`` becomes the disk's path when the first write is about to happen."""

    def __init__(self, console: Console, folder: Path | None, listener: Nobody | None = None) -> None:
        self.console = console
        self.folder = folder
        self.listener = listener or Nobody()
        self.written = ""

    def run(self) -> Manifest:
        """Decide, then write. Raises InstallError at the first thing that is wrong."""
        disk.require(self.console.log)
        # Until `self.written` is set nothing is written to any disk: the payload is ours, the node is known,
        # the disk is chosen, the layout fits, and every file that will be read is whole.
        source, found = self.find_payload()
        manifest = found.manifest
        node = choose.node(self.console, manifest)
        target = choose.disk(self.console, found, node)
        if carried.out(self.console, self.listener, target):
            return self.say_installed(node, manifest, "was complete before, and is not made twice")
        plan, kept = self.lay_out(manifest, target)
        files = payload.used_by(manifest, node)
        self.verify_payload(source, manifest, files)
        layout.require_room(plan, manifest.layer_bytes, source.beside(manifest))
        choose.disk_again(self.console, found, node, target)
        self.listener.ask_to_write(node.name, target.path)

        self.written = target.path
        volumes = self.prepare_disk(target, plan, kept)
        self.unpack_layers(source, manifest)
        self.mount_rest(volumes)
        system.tables(TARGET, volumes)
        system.identity(TARGET, source, node)
        self.install_boot_loader(target, volumes)
        self.drop_seed(source, node, files)
        self.copy_models(source, manifest)
        self.finish(source, volumes, manifest)
        return self.say_installed(node, manifest)

    def find_payload(self) -> tuple[Source, payload.Payload]:
        """The medium whose manifest is the one that this boot image was built with; or the server's payload."""
        self.console.step("payload", "looking for the medium")
        source: Source
        if net.address():
            source, found = net.find(self.console)
        else:
            digest = payload.expected_digest()
            if self.folder:
                found = payload.load(self.folder, digest)
            else:
                found = payload.find(digest, log=self.console.log)
            source = Medium(found.root)
        on = ", ".join(sorted(found.devices)) or source.where
        self.console.step("payload", f"{found.manifest.cluster}, plan {found.manifest.plan[:12]}, on {on}")
        return source, found

    def lay_out(self, manifest: Manifest, target: Disk) -> tuple[layout.Layout, str]:
        """The partitions, and the device of the models partition that stays, if one may."""
        wishes = (manifest.storage, target.size, manifest.layer_bytes, manifest.model_sizes)
        old = keep.partition(target) if manifest.storage.keep else None
        if old is not None:
            answer = layout.around(old, *wishes)
            if isinstance(answer, layout.Layout):
                self.console.step("disk", keep.told(manifest, old))
                return answer, old.path
            self.console.step("disk", f"{old.path} is made anew: {answer}")
        return layout.plan(*wishes), ""

    def verify_payload(self, source: Source, manifest: Manifest, files: tuple[File, ...]) -> None:
        """Size and sha256 of every file that will be read; of the models on a server only the size."""
        self.console.step("verify", f"{len(files)} files")
        source.prove(manifest, files, self.console.progress)

    def prepare_disk(self, target: Disk, plan: layout.Layout, kept: str) -> disk.Volumes:
        """From here on the disk's old content is gone, but for the models partition ``kept``."""
        log = self.console.log
        self.console.step("partition", target.path)
        disk.clear(target, log, kept=kept)
        disk.partition(target.path, plan, target.sector, log, keep=bool(kept))
        devices = disk.partition_devices(target.path, plan, log)
        volumes = disk.make_file_systems(devices, log, keep=bool(kept))
        disk.mount(volumes.root, TARGET, log)
        return volumes

    def unpack_layers(self, source: Source, manifest: Manifest) -> None:
        """The root file system, lowest layer first."""
        self.console.step("unpack", ", ".join(manifest.layers))
        before = 0
        for name in manifest.layers:
            file = manifest.file(name)

            def unpacked(done: int, _total: int, before: int = before) -> None:
                self.console.progress(before + done, manifest.layer_bytes)

            def fetched(done: int, file: File = file) -> None:
                self.console.progress(done, file.size, "fetched")

            self.console.phase = "fetch"
            path = source.local(file, STAGING, fetched)
            self.console.phase = "unpack"
            system.unpack(path, TARGET, unpacked, self.console.log)
            source.drop(path)
            before += file.size
        if STAGING.exists():
            STAGING.rmdir()

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

    def drop_seed(self, source: Source, node: Node, files: tuple[File, ...]) -> None:
        """What makes this node differ from the others."""
        self.console.step("seed", node.seed)
        system.seed(TARGET, source, node, files)

    def copy_models(self, source: Source, manifest: Manifest) -> None:
        """The model files, verified as they are copied."""
        names = dict.fromkeys(model.name.partition("/")[0] for model in manifest.models)
        self.console.step("models", ", ".join(names) or "none")
        system.models(TARGET, source, manifest, self.console.progress)

    def finish(self, source: Source, volumes: disk.Volumes, manifest: Manifest) -> None:
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
        system.marker(ESP, manifest.plan, self.listener.order)
        disk.unmount(ESP, log)
        disk.release(volumes.esp.path)
        disk.release(self.written)
        source.release(log)

    def say_installed(self, node: Node, manifest: Manifest, remark: str = "") -> Manifest:
        """Tell the server, then the consoles. The marker is on the disk by now, so nothing is lost if it is down:
        should it start this installer again with the same order, the marker is found."""
        line = f"{node.name} {remark or 'is installed'}"
        if not self.listener.installed(node.name, line):
            self.console.step(
                "done", "the server that ordered this does not answer; it hears of it at the next boot"
            )
        if remark:
            self.console.step("done", line)
        self.console.say(f"builder-installed {node.name} {manifest.plan}")
        return manifest


def main(arguments: list[str]) -> int:
    """Install, then reboot or power off; on any failure say why and stay."""
    os.umask(0o022)
    console = Console(active_ttys())
    folder = Path(arguments[1]) if arguments[:1] == ["--payload"] and len(arguments) == 2 else None
    if arguments and folder is None:
        console.say("usage: python3 -m installer [--payload DIR]")
        return 2
    mode = facts.kernel_argument("builder.mode") or "install"
    console.step("start", mode)
    if mode == "rescue":
        console.say(failure.machine(console))
        shell.wait_forever(console, at_once=True)
    install = Install(console, folder)
    try:
        install.listener = net.listener(console)
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
    install.listener.failed(install.console.phase, failure.reason(error), install.written)
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
