"""The command line as a person meets it: answers on stdout, one message and a hint on failure, stable codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.cli import main
from builder.errors import Exit

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "examples/quickstart.yaml")


def builder(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The quickstart where no lock lies beside it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/quickstart.txt").write_bytes((ROOT / "examples/models/quickstart.txt").read_bytes())
    path = tmp_path / "quickstart.yaml"
    path.write_text(Path(QUICKSTART).read_text())
    return path


def test_a_sound_spec_is_said_to_be_sound(spec: Path) -> None:
    done = builder("validate", spec)
    assert done.exit_code == 0
    assert "2 nodes, no mistakes" in done.stdout


def test_all_mistakes_at_once_with_line_and_mend(spec: Path) -> None:
    text = spec.read_text()
    text = text.replace("10.77.0.12", "10.99.0.12").replace("name: quickstart", "nam: quickstart", 1)
    spec.write_text(text)
    done = builder("validate", spec)
    assert done.exit_code == Exit.SPEC
    assert "Traceback" not in done.output
    line = 1 + text[: text.index("10.99.0.12")].count("\n")
    assert f"line {line}: nodes[1].address" in done.stderr
    assert "did you mean" in done.stderr
    assert done.stdout == ""
    machine = json.loads(builder("validate", spec, "--json").stdout)
    assert not machine["valid"]
    assert len(machine["mistakes"]) == done.stderr.count("line ")


def test_a_missing_spec_is_one_message(tmp_path: Path) -> None:
    done = builder("plan", tmp_path / "none.yaml")
    assert done.exit_code == Exit.SPEC
    assert "none.yaml" in done.stderr


def test_a_plan_without_a_lock(spec: Path) -> None:
    done = builder("plan", spec)
    assert done.exit_code == 0
    assert "not locked yet" in done.stdout
    assert re.search(r"node1\s+10\.77\.0\.11\s+mac=52:54:00:77:00:01", done.stdout)


def test_the_whole_plan_is_one_json_document(spec: Path) -> None:
    data = json.loads(builder("plan", spec, "--json").stdout)
    assert data["id"] is None
    assert [layer["name"] for layer in data["layers"]] == ["base", "site"]
    assert set(data["nodes"][0]["seed"]) == {"user-data", "meta-data", "network-config"}


def test_one_rendered_file(spec: Path) -> None:
    done = builder("plan", spec, "--file", "node1:/etc/nftables.conf")
    assert "ip saddr 10.77.0.0/24 tcp dport 8080 accept" in done.stdout
    seed = builder("plan", spec, "--file", "node2:/var/lib/cloud/seed/nocloud/meta-data")
    assert "local-hostname: node2" in seed.stdout


@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [("node9:/etc/fstab", "node9", "node1, node2"), ("node1:/etc/nothing", "/etc/nothing", "/etc/nftables.conf")],
)
def test_what_is_not_rendered_names_what_is(spec: Path, wanted: str, message: str, hint: str) -> None:
    done = builder("plan", spec, "--file", wanted)
    assert done.exit_code == Exit.SPEC
    assert message in done.stderr
    assert hint in done.stderr


def test_init_writes_a_spec_that_is_sound_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    assert builder("init", path).exit_code == 0
    assert path.read_text().startswith("# yaml-language-server: $schema=cluster.schema.json")
    assert json.loads((tmp_path / "cluster.schema.json").read_text())["title"]
    assert builder("validate", path).exit_code == 0
    path.write_text("mine")
    assert builder("init", path).exit_code == Exit.SPEC
    assert path.read_text() == "mine"


def test_the_schema_is_json() -> None:
    assert json.loads(builder("schema").stdout)["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_and_is_documented(command: str) -> None:
    done = builder(command, "--help")
    assert done.exit_code == 0
    if command != "clean":
        assert "Example" in done.stdout
    assert f"`builder {command}" in (ROOT / "docs/cli.md").read_text()


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    documented = re.findall(r"^\| (\d+) \| ", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert [int(code) for code in documented] == sorted(Exit)
