"""What looks like a secret goes, and what does not stays readable."""

from __future__ import annotations

import pytest

from tests import nodetools

scrub = nodetools.module("scrub")

# Spelt in pieces, so that no scanner takes this file for a leak.
KEY_BEGIN, KEY_END = "-----BEGIN OPENSSH PRIVATE " + "KEY-----", "-----END OPENSSH PRIVATE " + "KEY-----"
BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU" * 2


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("hashed_passwd: $y$j9T$abcdefgh$Qq0123456789abcdefgh", "Qq0123456789abcdefgh"),
        ("root:$6$saltsalt$Qq0123456789/abc.def:19000:0", "Qq0123456789"),
        ("cmd: ['usermod', '-p', '$2b$12$Qq0123456789abcdefgh']", "Qq0123456789abcdefgh"),
        ("x $argon2id$v=19$m=65536,t=3,p=4$c2FsdA$Qq0123456789 y", "Qq0123456789"),
        (f"{KEY_BEGIN}\n{BODY}\n{BODY}\n{KEY_END}\nafter", BODY),
        (f"log: {KEY_BEGIN}\n{BODY}\n", BODY),  # cut off
        (f'"key": "{KEY_BEGIN}\\n{BODY}\\n{KEY_END}\\n"', BODY),
        (f"ssh-ed25519 AAAA{BODY} me@laptop", BODY),
        (f"ecdsa-sha2-nistp256 AAAA{BODY} me@laptop", BODY),
        ("HF_TOKEN=hf_" + "a1B2c3D4e5F6g7H8i9J0", "a1B2c3D4e5"),
        ("using hf_" + "a1B2c3D4e5F6g7H8i9J0 for it", "a1B2c3D4e5"),
        ("Authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
        ('{"headers": {"authorization": "Bearer abc.def-123456"}}', "abc.def-123456"),
        ("GET https://user:hunter2@models.example/x", "hunter2"),
        ("password: hunter2", "hunter2"),
        ("wpa-psk = hunter2hunter2", "hunter2"),
        ('{"api_key": "hunter two", "n": 1}', "hunter two"),
        ("llama-server --api-key hunter2 --port 8080", "hunter2"),
        ("passphrase='hunter 2'", "hunter 2"),
        ("AWS_SECRET_ACCESS_KEY=hunter2/abc+d", "hunter2"),
    ],
)
def test_a_secret_goes(text: str, secret: str) -> None:
    assert secret in text
    cleaned = scrub.scrub(text)
    assert secret not in cleaned
    assert scrub.GONE in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "slot print_timing: prompt eval time = 9.02 ms / 16 tokens",
        "llama: eos token = 2, n_tokens = 31",
        "plan a1b2c3d4e5f60718293a4b5c6d7e8f901234567890abcdef1234567890abcdef",
        "sshd: Accepted publickey for admin from 10.77.0.1 port 4242 ssh2: ED25519 SHA256:abcdefghijklmnop",
        'tcp dport 50052 accept comment "llama.cpp RPC"',
        "http://10.77.0.11:8080/v1",
        "cost $5 and $HOME/bin",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub.scrub(text) == text


def test_what_follows_a_key_stays() -> None:
    cleaned = scrub.scrub(f"before\n{KEY_BEGIN}\n{BODY}\n{KEY_END}\nafter\n")
    assert cleaned == f"before\n{scrub.GONE}\nafter\n"


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("var/lib/cloud/seed/nocloud/user-data", True),
        ("var/lib/cloud/instance/user-data.txt", True),
        ("run/cloud-init/instance-data-sensitive.json", True),
        ("etc/shadow", True),
        ("etc/ssh/ssh_host_ed25519_key", True),
        ("home/admin/.ssh/authorized_keys", True),
        ("etc/ssl/private/x.pem", True),
        ("var/log/cloud-init.log", False),
        ("etc/builder/cluster.json", False),
        ("etc/nftables.conf", False),
    ],
)
def test_a_secret_s_file_is_known_by_its_name(path: str, secret: bool) -> None:
    assert scrub.secret_name(path) is secret
