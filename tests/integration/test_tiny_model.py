"""The tiny model of the tests: the same bytes each time, small, and what the format's own library can read."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

gguf: Any = pytest.importorskip("gguf", reason="the dev extra's gguf makes the model and reads it")

ROOT = Path(__file__).parents[2]


def make(out: Path, *options: str, hash_seed: str = "0") -> bytes:
    """The bytes of a new model, made in the folder of ``out`` with the given hash seed of Python."""
    command = [sys.executable, str(ROOT / "tools/make-tiny-model"), str(out), *options]
    subprocess.run(command, check=True, cwd=out.parent, env={"PYTHONHASHSEED": hash_seed})
    return out.read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny.gguf"
    make(out)
    return out


def tokens(reader: Any) -> list[str]:
    value: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    return value


def test_a_seed_gives_the_same_bytes_and_another_seed_others(model: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again.gguf", "--seed", "7", hash_seed="1") == model.read_bytes()
    assert make(tmp_path / "other.gguf", "--seed", "8") != model.read_bytes()


def test_it_is_small_and_alone(model: Path) -> None:
    assert model.stat().st_size < 5_000_000
    assert [path.name for path in model.parent.iterdir()] == ["tiny.gguf"]


def test_every_layer_can_be_read_and_holds_sane_numbers(model: Path) -> None:
    reader = gguf.GGUFReader(model)
    assert reader.fields["general.architecture"].contents() == "llama"
    layers = reader.fields["llama.block_count"].contents()
    assert layers >= 4, "fewer could not be split over nodes"
    named = {tensor.name: tensor for tensor in reader.tensors}
    parts = {
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    }
    blocks = {f"blk.{layer}.{part}.weight" for layer in range(layers) for part in parts}
    assert set(named) == blocks | {"token_embd.weight", "output_norm.weight", "output.weight"}
    for name, tensor in named.items():
        spread = float(tensor.data.astype("float64").std())
        assert 0.01 < spread < 0.2 or name.endswith("norm.weight"), f"{name} has a spread of {spread}"
    assert tuple(named["token_embd.weight"].data.shape) == (len(tokens(reader)), 128)


def test_the_tokenizer_is_a_real_one(model: Path) -> None:
    """Each merge makes a token that is in the vocabulary of parts that are; every byte alone is a token."""
    reader = gguf.GGUFReader(model)
    vocabulary = tokens(reader)
    assert len(set(vocabulary)) == len(vocabulary) == 1024
    merges = [merge.split(" ") for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    known = set(vocabulary[: 3 + 256])
    for first, second in merges:
        assert {first, second} <= known
        known.add(first + second)
    assert known == set(vocabulary)
    assert "ĠLicense" in known, "a common word of the text that it was trained on"
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    assert [kind == gguf.TokenType.CONTROL for kind in kinds] == [True] * 3 + [False] * (len(vocabulary) - 3)


def test_an_answer_is_never_cut_short_or_unprintable(model: Path) -> None:
    """The special tokens and the halves of UTF-8 characters have no weight in the output, all others have."""
    reader = gguf.GGUFReader(model)
    (output,) = (tensor.data for tensor in reader.tensors if tensor.name == "output.weight")
    mute = [token for token, row in zip(tokens(reader), output, strict=True) if not row.any()]
    assert mute[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert len(mute) == 3 + 128


def test_a_target_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/make-tiny-model"), str(tmp_path / "no/such/folder.gguf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("make-tiny-model: ") and done.stderr.count("\n") == 1


def repository(folder: Path, hash_seed: str) -> dict[str, bytes]:
    """The files of the model as a repository of the hub, and its card."""
    folder.mkdir()
    out = folder / "builder--tiny"
    command = [sys.executable, str(ROOT / "tools/make-tiny-model"), str(out), "--as", "builder/tiny"]
    subprocess.run(command, check=True, cwd=folder, env={"PYTHONHASHSEED": hash_seed})
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_as_a_repository_it_is_complete_by_its_own_index_and_the_same_each_time(tmp_path: Path) -> None:
    files = repository(tmp_path / "a", "0")
    assert files == repository(tmp_path / "b", "1")
    index = json.loads(files["builder--tiny/model.safetensors.index.json"])
    seen: dict[str, str] = {}
    total = 0
    for name in sorted(set(index["weight_map"].values())):
        data = files[f"builder--tiny/{name}"]
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__")
        seen |= dict.fromkeys(header, name)
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        assert len(data) == 8 + size + end
        total += end
    assert seen == index["weight_map"] and total == index["metadata"]["total_size"]
    card = tomllib.loads(files["builder--tiny.toml"].decode())
    config = json.loads(files["builder--tiny/config.json"])
    assert (card["model_id"], card["storage_size"]["in_bytes"]) == ("builder/tiny", total)
    assert card["n_layers"] == config["num_hidden_layers"] == len({n for n in seen if n.endswith("q_proj.weight")})
    tokenizer = json.loads(files["builder--tiny/tokenizer.json"])["model"]
    assert len(tokenizer["vocab"]) == config["vocab_size"]
