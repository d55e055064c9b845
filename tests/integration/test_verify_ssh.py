"""The ssh configuration and the checks against a real sshd on the loopback interface."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.run import run, start, which
from builder.verify.checks import run_checks
from builder.verify.clock import RealClock
from builder.verify.report import StepFailed
from builder.verify.ssh import Ssh, config_text, make_key

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(which("sshd") is None, reason="sshd is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the node's user is root, so sshd has to run as root"),
]

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""

CHECK = """
import json, os, pathlib
FACTS = json.loads(pathlib.Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
import pytest

def test_command(host):
    assert host.check_output("echo %s", FACTS["name"]) == "node1"

def test_wrong(host):
    assert host.file("/etc/hostname").content_string == "no such name"

def test_gpu():
    pytest.skip("no GPU")
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Ssh]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = make_key(tmp_path)
    (tmp_path / "authorized").write_bytes(key.credential[1])
    host_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "host")]
    run(host_key, step="making a host key")
    (tmp_path / "sshd_config").write_text(SSHD.format(port=port, folder=tmp_path))
    config = tmp_path / "ssh_config"
    config.write_text(config_text(port, key.private, tmp_path))
    sshd = which("sshd")
    assert sshd is not None
    with start([sshd, "-D", "-f", tmp_path / "sshd_config"], step="starting sshd") as process:
        ssh = Ssh(config, RealClock(), lambda: None if process.poll() is None else "sshd ended")
        yield ssh
        ssh.close()
        process.terminate()


def test_commands_go_through_one_connection(ssh: Ssh) -> None:
    assert "Linux" in ssh.greet(30)
    assert (ssh.config.parent / "control").is_socket()
    assert ssh.firmware(30) in ("bios", "uefi", "secure-boot")
    assert ssh.run("exit 3", 30).returncode == 3
    ssh.close()
    assert not (ssh.config.parent / "control").exists()


def test_checks_pass_fail_and_are_not_run(ssh: Ssh, tmp_path: Path) -> None:
    ssh.greet(30)
    check = tmp_path / "test_overlay.py"
    check.write_text(CHECK)
    steps = run_checks([check], ssh.config, {"name": "node1"}, tmp_path, 120)
    outcomes = {step.name.split("::")[1].split("[")[0]: step.outcome for step in steps}
    assert outcomes == {"test_command": "passed", "test_wrong": "failed", "test_gpu": "not run"}


def test_no_check_is_no_success(ssh: Ssh, tmp_path: Path) -> None:
    check = tmp_path / "test_none.py"
    check.write_text("")
    with pytest.raises(StepFailed, match="no check was found"):
        run_checks([check], ssh.config, {}, tmp_path, 120)


def test_a_node_that_is_gone_ends_the_tries(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    config = tmp_path / "ssh_config"
    config.write_text(config_text(1, key.private, tmp_path))
    with pytest.raises(StepFailed, match="QEMU exited 0 while ssh was tried"):
        Ssh(config, RealClock(), lambda: "QEMU exited 0").run("true", 30)
