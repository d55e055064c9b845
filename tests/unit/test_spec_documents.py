"""The schema, the starter, the examples and the reference agree with the loader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from builder import resources
from builder.engines import ENGINES
from builder.errors import BuilderError, Exit
from builder.spec.engine import Engine
from builder.spec.load import load, loads
from builder.spec.model import Cluster
from builder.spec.reference import WORDS, reference
from builder.spec.schema import schema
from builder.spec.slots import slots
from builder.spec.starter import starter

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def valid(data: Any) -> bool:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made).is_valid(data)


def test_the_folder_of_templates_is_found() -> None:
    assert (resources.root() / "templates/cluster.yaml.j2").is_file()


def test_the_starter_loads_and_fits_the_schema() -> None:
    text = starter("demo", "cluster.schema.json")
    assert text.startswith("# yaml-language-server: $schema=cluster.schema.json\n")
    cluster = loads(text)
    assert (cluster.name, len(cluster.nodes)) == ("demo", 2)
    assert valid(yaml.safe_load(text))


def test_the_starter_shows_every_section() -> None:
    assert set(yaml.safe_load(starter("demo", "x"))) == set(slots(Cluster)) - {
        "engine",
        "gpu",
    }  # shown as comments


def test_the_starter_refuses_a_name_that_no_cluster_can_have() -> None:
    with pytest.raises(BuilderError, match='the cluster\'s name "My Lab" is not a host name') as caught:
        starter("My Lab", "x")
    assert caught.value.code == Exit.SPEC


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load_and_fit_the_schema(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Made by `builder secrets`, and never in the repository.
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / f".config/cluster-image-builder/{path.stem}.namespace"
    secret.parent.mkdir(parents=True)
    secret.write_text("0123456789abcdef" * 4)
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    # Made by tools/make-tiny-model and tools/make-tiny-image, and not kept in the repository.
    (tmp_path / "models/tiny.gguf").write_bytes(b"GGUF")
    (tmp_path / "models/builder--tiny").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "models/builder--tiny" / name).write_text("{}")
    card = 'model_id = "builder/tiny"\nn_layers = 4\n[storage_size]\nin_bytes = 1\n'
    (tmp_path / "models/builder--tiny.toml").write_text(card)
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images/hello.tar").write_bytes(b"tar")
    assert load(tmp_path / path.name).name == path.stem
    assert valid(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("netwrok", {}),
        ("name", "Upper"),
        ("engine", "slurm"),
        ("nodes", []),
        ("nodes", [{"name": "a", "match": {}}]),
        ("nodes", [{"name": "a", "match": {"mac": "x"}}]),
        ("distribution", {"release": 13}),
        ("storage", {"disk": {"largest": True, "serial": "X"}}),
        ("storage", {"disk": {}}),
        ("storage", {"root": 20}),
        ("storage", {"root": "20GB"}),
        ("models", [{"name": "a"}]),
        ("firewall", {"allow": [{"port": 0}]}),
        ("firewall", {"allow": [{"port": 1, "source": "any"}]}),
        ("media", {"countdown": 999}),
        ("media", {"base_iso": {}}),
        ("media", {"base_iso": ""}),
        ("media", {"base_iso": {"release": "24.04", "path": "x.iso"}}),
        ("storage", {"luks": {"passphrase_file": "x", "passphrase": "hunter2"}}),
        ("storage", {"layout": "lvmm"}),
        ("access", {"password": "x"}),
    ],
)
def test_the_schema_refuses(key: str, value: object) -> None:
    assert not valid({**yaml.safe_load(starter("demo", "x")), key: value})


@pytest.mark.parametrize(
    "value",
    ["24.04", "https://h/x.iso", {"release": "noble"}, {"path": "x.iso", "sha256": "a" * 64}],
)
def test_the_schema_takes_a_base_iso_in_one_word_or_as_a_group(value: object) -> None:
    assert valid({**yaml.safe_load(starter("demo", "x")), "media": {"base_iso": value}})


def test_every_key_is_described() -> None:
    definitions = {"Cluster": schema(), **schema()["$defs"]}
    for name, definition in definitions.items():
        assert definition["description"], name
        for key, field in definition["properties"].items():
            # Where both say the same, pydantic leaves it to the definition.
            assert field.get("description") or "$ref" in field, f"{name}.{key}"


def test_examples_in_the_model_are_accepted() -> None:
    """What a description shows must not be refused; an ellipsis marks what cannot be shown whole."""

    def walk(section: Any) -> None:
        for slot in slots(section).values():
            if slot.section is Engine:
                for kind in ENGINES.values():
                    walk(kind.options)
                continue
            if slot.section:
                walk(slot.section)
                continue
            assert slot.rule in WORDS or slot.choices
            for shown in section.model_fields[slot.attribute].examples:
                for one in shown if slot.many else [shown]:
                    if "…" not in str(one):
                        slot.adapter.validate_python(one)

    walk(Cluster)


def test_the_reference_is_up_to_date(golden: Callable[[str, str], None]) -> None:
    golden("../../docs/spec.md", reference())
