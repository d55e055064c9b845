"""ssh into a node under test with a key that exists for this run only.

The key goes in as the systemd system credential ``ssh.authorized_keys.root``, an SMBIOS string of the virtual
machine: PID 1 imports it (systemd.system-credentials(7), systemd 252 and later) and
``/usr/lib/tmpfiles.d/provision.conf`` writes it to ``/root/.ssh/authorized_keys`` unless that file exists. So
the image is tested as it ships and no image ever holds the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.run import Completed, run
from builder.verify.clock import Clock
from builder.verify.report import StepFailed

CREDENTIAL = "ssh.authorized_keys.root"
ALIAS = "node"
LOST = 255  # ssh's own exit status when the connection, not the command, failed
PAUSE = 2.0  # seconds between two tries
CONTROL = "control"  # the shared connection's socket, beside the configuration
CLOSE_WAIT = 5.0  # seconds

# Host keys are made on the node's first boot, so there is nothing to compare them with. The control socket
# saves a key exchange, about a second of emulated CPU, for every command.
_CONFIG = """\
Host {alias}
    HostName 127.0.0.1
    Port {port}
    User root
    IdentityFile "{key}"
    IdentitiesOnly yes
    PreferredAuthentications publickey
    BatchMode yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    LogLevel ERROR
    ConnectTimeout {patience}
    ServerAliveInterval 15
    ServerAliveCountMax 8
    ControlMaster auto
    ControlPersist 60
    ControlPath "{folder}/{control}"
"""

# The fifth byte of the variable is its value, the four before it are attributes (kernel efivarfs.rst).
_FIRMWARE = """\
if [ ! -d /sys/firmware/efi ]; then echo bios; exit; fi
set -- $(od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c)
if [ "$5" = 1 ]; then echo secure-boot; else echo uefi; fi
"""


@dataclass(frozen=True)
class Key:
    """A throw-away key pair."""

    private: Path
    public: str

    @property
    def credential(self) -> tuple[str, bytes]:
        return CREDENTIAL, f"{self.public}\n".encode()


def make_key(folder: Path) -> Key:
    """Make an ed25519 key in ``folder``. Raises BuilderError if ssh-keygen is missing or fails."""
    private = folder / "key"
    comment = "builder boot-test, one run only"
    argv: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", private]
    run(argv, step="making the throw-away ssh key")
    return Key(private, private.with_suffix(".pub").read_text().strip())


def config_text(port: int, key: Path, folder: Path, patience: int = 30) -> str:
    """An ssh configuration in which ``ssh node`` reaches the virtual machine.

    One try ends after ``patience`` seconds without an answer.
    """
    return _CONFIG.format(alias=ALIAS, port=port, key=key, folder=folder, patience=patience, control=CONTROL)


@dataclass(frozen=True)
class Ssh:
    """Commands on the node. ``alive`` says None while its machine runs, else how it ended."""

    config: Path
    clock: Clock
    alive: Callable[[], str | None]

    def once(self, command: str) -> Completed:
        """One try; the exit status is the command's, or LOST."""
        return run(["ssh", "-F", self.config, ALIAS, command], step="running a command on the node", check=False)

    def run(self, command: str, limit: float) -> Completed:
        """Try until ssh gets through: it answers before cloud-init is done and may restart while it works.

        ``command`` may thus run more than once. Raises StepFailed after ``limit`` seconds without a
        connection or when the machine is gone. A status other than LOST is returned, whatever it is.
        """
        deadline = self.clock.now() + limit
        while True:
            done = self.once(command)
            if done.returncode != LOST:
                return done
            said = done.stderr.strip()
            ended = self.alive()
            if ended is not None:
                raise StepFailed(f"{ended} while ssh was tried", said)
            if self.clock.now() > deadline:
                raise StepFailed(f"ssh did not get through within {limit:.0f} s", said)
            self.clock.sleep(PAUSE)

    def greet(self, limit: float) -> str:
        """What the node says of itself once ssh gets through. Raises StepFailed."""
        done = self.run("uname -srm && uptime", limit)
        if done.returncode != 0:
            raise StepFailed(f"the first command exited {done.returncode}", done.stderr.strip())
        return done.stdout.strip()

    def firmware(self, limit: float) -> str:
        """Which firmware the running system was started by: bios, uefi or secure-boot. Raises StepFailed."""
        return self.run(_FIRMWARE, limit).stdout.strip()

    def wait_cloud_init(self, limit: float) -> str:
        """Wait until cloud-init is done, without error or warning. Raises StepFailed."""
        done = self.run(f"timeout {limit:.0f} cloud-init status --wait --long", limit)
        said = (done.stdout + done.stderr).strip()
        if done.returncode != 0 or "status: done" not in said:
            raise StepFailed(f"cloud-init status --wait exited {done.returncode}", said)
        return said

    def close(self) -> None:
        """End the shared connection's background process; it takes its socket away as it goes."""
        run(["ssh", "-F", self.config, "-O", "exit", ALIAS], step="closing the ssh connection", check=False)
        deadline = self.clock.now() + CLOSE_WAIT
        while (self.config.parent / CONTROL).exists() and self.clock.now() < deadline:
            self.clock.sleep(0.05)
