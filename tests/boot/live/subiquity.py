"""What subiquity does with an autoinstall document, up to the point where it would look at the disks.

The real one is a snap of Ubuntu's. This does the same in the same order, as its server/server.py has it (start,
select_autoinstall, load_autoinstall_config): wait for cloud-init; take the first document of /autoinstall.yaml,
cloud-init's combined configuration and /cdrom/autoinstall.yaml, and copy it to /autoinstall.yaml; run the early
commands; load /autoinstall.yaml again. It shows what it has then, and powers off. With curtin beside it, it
goes on and installs (install.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

DOCUMENT = Path("/autoinstall.yaml")
COMBINED = Path("/run/cloud-init/combined-cloud-config.json")
FROM_CLOUD = Path("/run/subiquity/cloud.autoinstall.yaml")
ON_MEDIUM = Path("/cdrom/autoinstall.yaml")
LOG = Path("/var/log/installer/subiquity-server-debug.log")
INSTALL = Path(__file__).with_name("install.py")


def main() -> None:
    # The real one silences these too, or they would be written across its screens.
    subprocess.run(["dmesg", "-n", "1"], check=False)
    os.kill(1, signal.SIGRTMIN + 21)
    say("cmdline", Path("/proc/cmdline").read_text().strip())
    subprocess.run(["cloud-init", "status", "--wait"], check=False, stdout=subprocess.DEVNULL)
    say("cloud-init", json.dumps(json.loads(Path("/run/cloud-init/result.json").read_text())["v1"]))
    document: dict[str, Any] = {}
    try:
        document = select()
        run(document.get("early-commands", []))
        document = load(DOCUMENT)
        say("document", json.dumps(document))
        if INSTALL.exists():
            LOG.parent.mkdir(parents=True, exist_ok=True)
            with LOG.open("wb") as log:
                argv = ["python3", "-B", str(INSTALL)]
                subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            run(document["late-commands"])
    except Exception as error:
        say("error", f"{type(error).__name__}: {error}")
        run(document.get("error-commands", []), check=False)
        say("end", "An error occurred. Press enter to start a shell")
    subprocess.run(["systemctl", document.get("shutdown", "poweroff")], check=True)


def select() -> dict[str, Any]:
    """The document that rules the early part; from here on it lies at /autoinstall.yaml."""
    if COMBINED.exists() and (found := json.loads(COMBINED.read_text()).get("autoinstall")):
        FROM_CLOUD.parent.mkdir(parents=True, exist_ok=True)
        FROM_CLOUD.write_text(yaml.dump(found))
    source = next((path for path in (DOCUMENT, FROM_CLOUD, ON_MEDIUM) if path.exists()), None)
    if source is None:
        raise LookupError("no autoinstall document: a person would be asked")
    say("source", str(source))
    if source != DOCUMENT:
        DOCUMENT.write_bytes(source.read_bytes())
    return load(DOCUMENT)


def load(path: Path) -> dict[str, Any]:
    """The document in a file; a key autoinstall around it is allowed if nothing else is there."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    if "autoinstall" in document:
        (document,) = document.values()
    if document["version"] != 1:
        raise ValueError(f"version {document['version']}")
    return document


def run(commands: Sequence[str | list[str]], *, check: bool = True) -> None:
    """A string is a shell's, a list is run as it is; what they print goes to the journal."""
    environment = {**os.environ, "TARGET_MOUNT_POINT": "/target"}
    for command in commands:
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        subprocess.run(["systemd-cat", *argv], check=check, stdin=subprocess.DEVNULL, env=environment)


def say(what: str, text: str) -> None:
    """One line on the serial console, in one piece."""
    with Path("/dev/ttyS0").open("wb", buffering=0) as serial:
        serial.write(f"\r\nlive-{what}: {text}\r\n".encode())


if __name__ == "__main__":
    main()
