"""Whole specs: every mistake at once, each with its line and path; and never anything but SpecError."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builder.engines import ENGINES
from builder.errors import BuilderError, Exit, Mistake, SpecError
from builder.spec import tree
from builder.spec.load import load, loads
from builder.spec.model import Cluster, Disk
from builder.spec.slots import slots
from builder.spec.warnings import warnings

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop"
GOOD = """\
name: demo
network: {subnet: 10.77.0.0/24, gateway: 10.77.0.1}
nodes:
  - name: node1
    match: {mac: "52:54:00:77:00:01"}
    address: 10.77.0.11
"""


def mistakes(text: str, base: Path = Path()) -> tuple[Mistake, ...]:
    with pytest.raises(SpecError) as caught:
        loads(text, base=base)
    assert caught.value.code == Exit.SPEC
    return caught.value.mistakes


def only(text: str, base: Path = Path()) -> Mistake:
    (mistake,) = mistakes(text, base)
    return mistake


def test_a_good_spec() -> None:
    cluster = loads(GOOD)
    assert cluster.volume == "DEMO"
    assert cluster.node("node1") is cluster.nodes[0]
    assert cluster.disk_of(cluster.nodes[0]) == Disk(largest=True)
    assert not cluster.disk_of(cluster.nodes[0]).may_overwrite
    assert Disk(serial="X").may_overwrite
    assert (cluster.distribution.release, cluster.media.serial, cluster.storage.models.size) == (
        "13",
        "ttyS0,115200",
        "fit",
    )
    with pytest.raises(KeyError):
        cluster.node("other")


def test_empty_sections_are_their_defaults() -> None:
    assert loads(GOOD + "media:\nmodels:\nfirewall:\n  allow:\n") == loads(GOOD)


def test_null_turns_the_serial_console_off() -> None:
    assert loads(GOOD + "media: {serial: null}\n").media.serial is None


def test_anchors_may_be_used() -> None:
    spec = GOOD + "    disk: &d {largest: true, min_size: 20G}\nstorage: {disk: *d}\n"
    assert loads(spec).storage.disk.min_size == 20 << 30


TRAPS = [
    ("distribution: {release: 24.10}", "distribution.release", "YAML read 24.10 as the number 24.1, and text is wanted", 'quote it: "24.10"'),
    ("distribution: {release: 13}", "distribution.release", "YAML read 13 as a number, and text is wanted", 'quote it: "13"'),
    ("distribution: {kernel: on}", "distribution.kernel", "must be generic or cloud or hwe; YAML read on as true", ""),
    ("distribution: {packages: [yes]}", "distribution.packages[0]", "YAML read yes as true, and text is wanted", 'quote it: "yes"'),
    ("access: {user: no}", "access.user", "YAML read no as false, and text is wanted", 'quote it: "no"'),
    ("models: [{name: 2024-01-01, url: https://h/x}]", "models[0].name", "YAML read 2024-01-01 as a date, and text is wanted", 'quote it: "2024-01-01"'),
    ("storage: {disk: {serial: 0123}}", "storage.disk.serial", "YAML read 0123 as the octal number 83, and text is wanted", 'quote it: "0123"'),
    ("storage: {disk: {wwn: 0x5002538f00000001}}", "storage.disk.wwn", "YAML read 0x5002538f00000001 as the hexadecimal number 5765262346633084929, and text is wanted", 'quote it: "0x5002538f00000001"'),
    ("storage: {root: 20}", "storage.root", "20 has no unit", "write 20G, or K, M, T: powers of 1024"),
    ("media: {countdown: 010}", "media.countdown", "YAML read 010 as the octal number 8", "write the plain number, like 8"),
    ("media: {countdown: 1_0}", "media.countdown", "YAML read 1_0 as the number 10", "write the plain number, like 10"),
    ("media: {countdown: 0:10}", "media.countdown", "must be a whole number", ""),
    ('media: {countdown: "5"}', "media.countdown", "must be a whole number", "write it without quotes: 5"),
    ("media: {countdown: 5.0}", "media.countdown", "must be a whole number", ""),
    ("media: {countdown: .inf}", "media.countdown", "must be a whole number; YAML read .inf as a number", ""),
    ("media: {countdown: 2024-99-99}", "media.countdown", "must be a whole number; YAML read 2024-99-99 as a date", ""),
    ("media: {countdown: 0b_}", "media.countdown", "must be a whole number; YAML read 0b_ as a number", ""),
    ("storage: {disk: {largest: on}}", "storage.disk.largest", "YAML read on as true", "write true"),
    ("storage: {disk: {largest: false}}", "storage.disk.largest", "must be true", ""),
    ('storage: {disk: {largest: true, overwrite: "true"}}', "storage.disk.overwrite", "must be true or false", "write it without quotes: true"),
    ("storage: {disk: {largest: true, overwrite: yes}}", "storage.disk.overwrite", "YAML read yes as true", "write true"),
    ('firewall: {allow: [{port: "80"}]}', "firewall.allow[0].port", '"80" is not a port number, nor a range like 8000-8010', "write it without quotes: 80"),
    ("firewall: {allow: [{port: 80, from: on}]}", "firewall.allow[0].from", '"on" is not cluster, any or a network; YAML read on as true', "write it like 10.0.0.0/24"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "path", "message", "hint"), TRAPS)
def test_yaml_traps(line: str, path: str, message: str, hint: str) -> None:
    assert only(f"{GOOD}{line}\n") == Mistake(7, path, message, hint)


def test_a_mac_of_digits_is_a_base_60_number() -> None:
    spec = GOOD.replace('"52:54:00:77:00:01"', "52:54:00:17:00:01")
    number = yaml.safe_load("52:54:00:17:00:01")
    assert isinstance(number, int)
    assert only(spec) == Mistake(
        5,
        "nodes[0].match.mac",
        f"YAML read 52:54:00:17:00:01 as the base-60 number {number}, and text is wanted",
        'quote it: "52:54:00:17:00:01"',
    )


STRUCTURE = [
    ("netwrok: {}", 7, "netwrok", "unknown key", "did you mean network?"),
    ("disk: {}", 7, "disk", "unknown key", "did you mean nodes.disk or storage.disk?"),
    ("zzz: 1", 7, "zzz", "unknown key", "known here: name, network, distribution, access, nodes, storage, models, firewall, engine, gpu, runtime, images, join, media"),
    ("    mac: x", 7, "nodes[0].mac", "unknown key", "did you mean match.mac?"),
    ("    addres: 10.77.0.12", 7, "nodes[0].addres", "unknown key", "did you mean address?"),
    ("name: other", 7, "name", "is given twice, first on line 1", ""),
    ("    address: dhcp", 7, "nodes[0].address", "is given twice, first on line 6", ""),
    ("on: 1", 7, "on", "unknown key, which YAML read as true", ""),
    ("1: 1", 7, "1", "unknown key, which YAML read as a number", ""),
    ("? [a]\n: 1", 7, "?", "a list stands where a key is wanted", ""),
    ("<<: {}", 7, "<<", "merge keys are not supported: write the keys out", ""),
    ("access: [a]", 7, "access", "must be a group of keys, not a list", "its keys are: user, ssh_keys, ssh_key_files, password_hash"),
    ("engine: slurm", 7, "engine.name", "no engine is called slurm", f"known: {', '.join(ENGINES)}"),
    ("media:\n  after: rebot", 8, "media.after", "must be reboot or poweroff", "did you mean reboot?"),
    ("media:\n  after: [a]", 8, "media.after", "must be a single value, not a list", ""),
    ("models: {name: x}", 7, "models", "must be a list, not a group of keys", 'begin each item with "- "'),
    ("distribution:\n  packages: htop", 8, "distribution.packages", "must be a list, not text", 'write it like ["htop", "firmware-realtek"]'),
    ("distribution:\n  packages:\n    - htop\n    -", 10, "distribution.packages[1]", "is empty", ""),
    ("models:\n  - name: x\n    path: a\n    url: https://h/x", 8, "models[0]", "has path and url, but only one of path, url or repo can be meant", ""),
    ("models:\n  - name: x", 8, "models[0]", "needs one of path, url or repo", ""),
    ("models:\n  - url: https://h/x", 8, "models[0].name", "is missing", 'for example: name: "tiny.gguf"'),
    ("models:\n  - repo: a/b\n    sha256: " + "a" * 64, 9, "models[0].sha256", "goes with path or url only", "leave it out"),
    ("models:\n  - {name: x, url: 'https://h/x', revision: main}", 8, "models[0].revision", "goes with repo only", "leave it out"),
    ("models:\n  - {name: x, url: 'https://h/x', files: ['*']}", 8, "models[0].files", "goes with repo only", "leave it out"),
    ("models:\n  - {name: x, url: 'https://h/x', token_env: T}", 8, "models[0].token_env", "goes with repo only", "leave it out"),
    ("models:\n  - reop: a/b", 8, "models[0].reop", "unknown key", "did you mean repo?"),
    ("models:\n  - repo: a", 8, "models[0].repo", '"a" is not a repository', "write it like org/name"),
    ("models:\n  - repo: https://h/a/b", 8, "models[0].repo", "must be the repository alone, without the hub's address", "write it like org/name"),
    ("models:\n  - repo: a/..", 8, "models[0].repo", '"a/.." is not a repository', "write it like org/name"),
    ("models:\n  - {repo: a/b, revision: 1234567}", 8, "models[0].revision", "YAML read 1234567 as a number, and text is wanted", 'quote it: "1234567"'),
    ("models:\n  - {repo: a/b, revision: ../x}", 8, "models[0].revision", '"../x" is not a commit, branch or tag', ""),
    ("models:\n  - {repo: a/b, files: [x/]}", 8, "models[0].files[0]", '"x/" is a folder', "write x/*"),
    ("models:\n  - {repo: a/b, files: [../x]}", 8, "models[0].files[0]", '"../x" is not a path in a repository, nor a glob', "write it like *.gguf"),
    ("models:\n  - {repo: a/b, files: '*'}", 8, "models[0].files", "must be a list, not text", 'write it like ["*.gguf", "config.json"]'),
    ("models:\n  - {repo: a/b, token_env: hf token}", 8, "models[0].token_env", "is not the name of an environment variable", "use A-Z, 0-9 and _, like HF_TOKEN"),
    ("models:\n  - {repo: a/b}\n  - {repo: a/b, revision: x}", 9, "models[1].name", "the name a--b is also models[0]'s", ""),
    ("models:\n  - {repo: a/b}\n  - {name: a--b, url: 'https://h/x'}", 9, "models[1].name", "the name a--b is also models[0]'s", ""),
    ("models:\n  - {name: SHA256SUMS, url: 'https://h/x'}", 8, "models[0].name", "SHA256SUMS is a name that every models partition has already", "choose another"),
    ("storage:\n  disk: {min_size: 1G}", 8, "storage.disk", "needs one of serial, wwn, path or largest", ""),
    ("firewall:\n  allow:\n    - proto: tcp", 9, "firewall.allow[0].port", "is missing", "for example: port: 8080"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "line", "path", "message", "hint"), STRUCTURE)
def test_structure(more: str, line: int, path: str, message: str, hint: str) -> None:
    assert only(f"{GOOD}{more}\n") == Mistake(line, path, message, hint)


WHOLE = [
    ("", 0, "is empty"),
    ("# only a comment\n", 0, "is empty"),
    ("- a\n", 1, "must be a group of keys, not a list"),
    ("hello\n", 1, "must be a group of keys, not text"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins"),
    ("name: a: b\n", 1, "this is not YAML: a value holds a colon and a space"),
    ("name: x\n\tnodes: 1\n", 2, "this is not YAML: a tab indents this line"),
    ("name: @x\n", 1, "this is not YAML: no value begins like this"),
    ('name: "x\n', 2, "this is not YAML: a quoted value never ends"),
    ("name: [a, b\n", 2, "this is not YAML: a comma or a closing bracket is missing"),
    ("name: x\n  y: 1\n", 2, "this is not YAML: a value holds a colon and a space"),
    ("name: !!python/object:os.system x\n", 1, "the tag !!python/object:os.system has no meaning here"),
    ("name: !secret x\n", 1, "the tag !secret has no meaning here"),
    ("name: *x\n", 1, "*x is used here, but no &x ends before"),
    ("name: &x [*x]\n", 1, "*x is used here, but no &x ends before"),
    ("[" * 200, 1, "is nested more than 20 levels deep"),
    ("[" * 100_000, 1, "is nested more than 20 levels deep"),
    ("name: \x01\n", 1, "holds a character that is not allowed in YAML"),
    ('a: b\nname: "\\u0001"\n', 2, "holds a control character"),
    ('name: "\\ud800"\n', 1, "this is not YAML: found invalid Unicode character escape code"),
]


@pytest.mark.parametrize(("text", "line", "message"), WHOLE)
def test_the_file_as_a_whole(text: str, line: int, message: str) -> None:
    mistake = only(text)
    assert (mistake.line, mistake.path, mistake.message) == (line, "(file)", message)


@pytest.mark.parametrize("key", ["password", "passwd"])
def test_a_plaintext_password_is_refused_and_not_repeated(key: str) -> None:
    spec = GOOD + f"access:\n  {key}: hunter2\n"
    assert only(spec) == Mistake(
        8,
        f"access.{key}",
        "a password must not stand here: the medium can be read by anyone",
        "use access.password_hash; make a hash with `mkpasswd -m yescrypt` (package whois) or `openssl passwd -6`",
    )


@pytest.mark.parametrize(
    "line",
    [
        "access: {password_hash: hunter2}", "access: {password_hash: 0777123}", "access: {password: hunter2}",
        "access: {password_hash: 2001-09-11}", "access: {password_hash: [hunter2]}", "access: {ssh_keys: hunter2}",
        "access: {ssh_keys: ['-----BEGIN OPENSSH PRIVATE KEY----- hunter2']}",
        "distribution: {mirror: 'https://me:hunter2@host/debian'}",
    ],
)  # fmt: skip
def test_secrets_are_never_repeated(line: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(f"{GOOD}{line}\n")
    assert not any(secret in str(caught.value) for secret in ("hunter2", "0777123", "2001-09-11"))


def test_one_run_shows_everything() -> None:
    """Cross-checks run on what could be read, though other values of the same node are wrong."""
    spec = """\
name: demo
network: {subnet: 10.77.0.0/24, gatway: 10.77.0.1}
distribution: {release: 24.10}
nodes:
  - name: node1
    match: {mac: "52:54:00:77:00:01"}
    address: 10.77.0.11
    disk: {largest: yes}
  - name: node1
    match: {mac: "52:54:00:77:00:01", serial: 010}
    address: 10.77.0.11
  - 7
  - name: node3
    match: {mac: nonsense}
    address: 10.99.0.3
media: {after: no}
"""
    assert [(m.line, m.path) for m in mistakes(spec)] == [
        (2, "network.gatway"), (3, "distribution.release"), (8, "nodes[0].disk.largest"), (9, "nodes[1].name"),
        (10, "nodes[1].match.mac"), (10, "nodes[1].match.serial"), (11, "nodes[1].address"), (12, "nodes[2]"),
        (14, "nodes[3].match.mac"), (15, "nodes[3].address"),
        (16, "media.after"),
    ]  # fmt: skip


def test_missing_things_have_examples() -> None:
    assert [(str(mistake)) for mistake in mistakes("engine: none\n")] == [
        "line 1: name: is missing (for example: name: \"quickstart\")",
        "line 1: network: is missing (for example: network: {subnet: \"10.77.0.0/24\"})",
        "line 1: nodes: is missing (for example: nodes: [{name: \"node1\", match: {mac: \"52:54:00:77:00:01\"}}])",
    ]  # fmt: skip


def test_no_nodes() -> None:
    assert only("name: a\nnetwork: {subnet: 10.0.0.0/24}\nnodes: []\n").message == "must have at least one item"


# ---- files


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="no such file") as caught:
        load(tmp_path / "cluster.yaml")
    assert (caught.value.code, caught.value.hint) == (Exit.SPEC, "`builder init` writes a spec to start from")
    with pytest.raises(BuilderError, match="cannot be read"):
        load(tmp_path)


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path) == loads(GOOD)
    path.write_bytes(b"name: x\n# caf\xe9\n")
    with pytest.raises(SpecError, match=r"line 2: .*not UTF-8"):
        load(path)
    path.write_bytes(b"#" * (9 << 20))
    with pytest.raises(SpecError, match="over 8 MiB"):
        load(path)


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    spec = GOOD + f'access: {{ssh_keys: ["{ED25519}"], ssh_key_files: ["~/.ssh/*.pub"]}}\n'
    assert loads(spec).access.ssh_keys == (ED25519,)
    (tmp_path / ".ssh/a.pub").write_text(f"# mine\n{ED25519}\n{ED25519.replace('me@', 'you@')}\n")
    (tmp_path / ".ssh/b-cert.pub").write_text("ssh-ed25519-cert-v01@openssh.com AAAA\n")
    assert loads(spec).access.ssh_keys == (ED25519, ED25519.replace("me@", "you@"))
    assert warnings(loads(spec)) == ()


KEY_FILES = [
    ("none.pub", "{base}/none.pub does not exist"),
    ("id", "{base}/id is a PRIVATE key, which must never leave your machine"),
    ("i*", "{base}/id is a PRIVATE key, which must never leave your machine"),
    ("bad.pub", "{base}/bad.pub line 2 is a damaged public key: part of the line is missing or changed"),
    ("b*.pub", "{base}/bad.pub line 2 is a damaged public key: part of the line is missing or changed"),
    ("cert", "{base}/cert line 1 is a certificate, not a public key"),
    ("binary", "{base}/binary is not a text file"),
    ("folder", "{base}/folder cannot be read: Is a directory"),
    ("~nobody-of-this-name/x", "~nobody-of-this-name/x: the home folder is not known"),
    ("**x/*", "**x/* is not a glob that can be followed"),
]


@pytest.mark.parametrize(("pattern", "message"), KEY_FILES)
def test_wrong_key_files(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n")
    (tmp_path / "bad.pub").write_text(f"\n{ED25519[:50]}\n")
    (tmp_path / "cert").write_text("ssh-ed25519-cert-v01@openssh.com AAAA\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    mistake = only(GOOD + f'access: {{ssh_key_files: ["{pattern}"]}}\n', tmp_path)
    assert (mistake.line, mistake.path) == (7, "access.ssh_key_files[0]")
    assert mistake.message == message.format(base=tmp_path)
    assert "b3Bl" not in str(mistake)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.gguf", "no.gguf does not exist"),
        ("~/x.gguf", "~/x.gguf does not exist"),
        ("folder", "folder is a folder without files"),
        ("empty", "empty is empty"),
        ("folder/", "is not the path of a file"),
    ],
)
def test_wrong_model_files(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    mistake = only(GOOD + f"models:\n  - name: x\n    path: {path}\n", tmp_path)
    assert (mistake.line, mistake.path, mistake.message) == (9, "models[0].path", message)


def test_a_token_is_refused_and_never_quoted() -> None:
    for token in (
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
        "sk-abcdefghijklmnop",
        "api_org_AbCdEfGhIjKlMnOpQrStUvWxYz0",
    ):
        mistake = only(GOOD + f"models:\n  - {{repo: a/b, token_env: {token}}}\n")
        assert (mistake.line, mistake.path) == (8, "models[0].token_env")
        assert token[3:] not in str(mistake)


def test_a_repository_s_folder_is_called_after_it() -> None:
    models = loads(GOOD + "models: [{repo: org/name}, {repo: org/name, name: other}]\n").models
    assert [model.name for model in models] == ["org--name", "other"]


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(3 << 30)
    spec = GOOD + "models: [{name: x, path: big}]\nstorage: {models: 2G}\n"
    assert only(spec, tmp_path) == Mistake(
        8, "storage.models", "is too small: the models take 3G", "write fit, or a larger size"
    )


# ---- anything at all


def many(count: int) -> str:
    nodes = "".join(
        f'  - name: node{i}\n    match:\n      mac: "52:54:00:77:{i // 256:02x}:{i % 256:02x}"\n'
        f"    address: 10.0.{i // 250}.{i % 250 + 1}\n    disk:\n      serial: S{i}\n      min_size: 20G\n"
        for i in range(count)
    )
    return f"name: big\nnetwork: {{subnet: 10.0.0.0/16}}\nnodes:\n{nodes}"


def test_a_thousand_mistakes_are_all_told() -> None:
    """How fast is measured in bench/."""
    spec = many(1000)
    assert len(loads(spec).nodes) == 1000
    assert len(mistakes(spec.replace("20G", "20").replace("52:54:00:77:00:", "52:54:00:77:01:"))) >= 1000


def test_the_pure_python_parser_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = loads(GOOD)
    monkeypatch.setattr(tree, "LOADER", yaml.SafeLoader)
    assert loads(GOOD) == fast


PIECES = st.sampled_from(
    [*slots(Cluster), "subnet", "match", "mac", ": ", "- ", "\n", "  ", "{", "}", "[", "]", '"', "'", "&a ", "*a", "!!int ", "!", "~",
     "on", "0x", "0b_", "1:2", "2024-01-01", "1e5", ".nan", "|\n", "? ", "#", "---\n", "\t", "%", "10.0.0.0/24", "\\"]
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=40).map("".join)))
@example("name: " + "9" * 5000)
@example("!!int : 1")
@example("{a: !!bool x}")
@example("=: =")
@example("a: !!null [b]")
def test_any_text_is_a_cluster_or_a_spec_error(text: str) -> None:
    try:
        loads(text)
    except SpecError as error:
        assert error.mistakes


VALUES = [
    "true",
    "on",
    "1",
    "010",
    "1.5",
    ".nan",
    "~",
    "2024-01-01",
    '"x"',
    "[]",
    "[~]",
    "[[]]",
    "{}",
    "{a: b}",
    '""',
    '"a\\tb"',
]


def _places(section: type, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, slot in slots(section).items():
        found.append((*prefix, key))
        if slot.section:
            found += _places(slot.section, (*prefix, f"[{key}]" if slot.many else key))
    return found


@pytest.mark.parametrize("place", _places(Cluster), ids=".".join)
def test_any_value_anywhere_is_judged_in_plain_words(place: tuple[str, ...]) -> None:
    for value in VALUES:
        text = value
        for key in reversed(place):
            text = f"{{{key[1:-1]}: [{text}]}}" if key.startswith("[") else f"{{{key}: {text}}}"
        with pytest.raises(SpecError) as caught:
            loads(text)
        for word in ("pydantic", "Input should", "validation", "value_error", "object at", "None"):
            assert word not in str(caught.value)
