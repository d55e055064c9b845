"""Which model exo serves, and whether its files and its card are what exo needs. Pure.

exo calls a folder complete when every weight that some ``*.safetensors.index.json`` names is there, by name alone
(download/download_utils.py, is_model_directory_complete): a file without bytes passes, and weights without an
index never do. Digests are our own business, before exo starts.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.engines.kind import Files, Finding

if TYPE_CHECKING:
    from builder.spec.model import Model

INDEX = ".safetensors.index.json"
# What MLX's loader reads beside the weights (worker/engines/mlx/utils_mlx.py); exo itself asks for none of it.
_BESIDE = ("config.json", "tokenizer_config.json")
_WHERE = ("engine", "model")


def folder(model: str) -> str:
    """The folder of a model's files (shared/types/common.py, ModelId.normalize)."""
    return model.replace("/", "--")


def served(models: Sequence[Model], wanted: str | None) -> str | None:
    """The model that is placed: the one named, else the only folder that can be one."""
    if wanted:
        return wanted
    found = [model.name.replace("--", "/", 1) for model in models if model and model.name and "--" in model.name]
    return found[0] if len(found) == 1 else None


def weights(models: Sequence[Model], wanted: str | None, files: Files) -> tuple[str, ...]:
    model = served(models, wanted)
    if model is None or files is None:
        return ()
    return tuple(name for name in files if name.startswith(f"{folder(model)}/") and name.endswith(".safetensors"))


def complaints(
    models: Sequence[Model], wanted: str | None, card: str | None, version: str, files: Files
) -> Iterator[Finding]:
    """What is wrong with the model and its card."""
    model = served(models, wanted)
    if model is None:
        several = [found.name for found in models if found and found.name and "--" in found.name]
        if len(several) > 1:
            hint = f"say so under engine.model; there is: {', '.join(several)}"
            yield Finding(("engine",), "it is not clear which model to serve", hint, (("models",), _WHERE))
        return
    names = [found.name for found in models if found and found.name]
    if folder(model) not in names:
        hint = f"add it to models: repo: {model}" + (f"; there is: {', '.join(names)}" if names else "")
        yield Finding(_WHERE, f"the files of {model} are not among the models", hint, (("models",),))
    elif card is None and known(version) and model not in known(version):
        message = f"exo {version} has no card of {model}, and offline it can ask nobody"
        hint = "give one: engine.card, in the form of exo's own"
        yield Finding(("engine",), message, hint, (_WHERE, ("models",)))
    if card is not None:
        yield from _card(card, model)
    if files is not None:
        yield from _incomplete(model, files)


def _card(text: str, model: str) -> Iterator[Finding]:
    where = ("engine", "card")
    try:
        card = tomllib.loads(text)
        named, size = card["model_id"], card["storage_size"]["in_bytes"]
        layers = card["n_layers"]
    except tomllib.TOMLDecodeError as error:
        yield Finding(where, f"is not TOML: {error}")
        return
    except (KeyError, TypeError) as error:
        yield Finding(where, f"lacks {error}", "see exo's resources/inference_model_cards for the form")
        return
    if named != model:
        yield Finding(where, f"describes {named}, and the model is {model}")
    if not (isinstance(size, int) and size > 0 and isinstance(layers, int) and layers > 0):
        yield Finding(where, "must say n_layers and storage_size.in_bytes, both over 0")


def _incomplete(model: str, files: Mapping[str, int]) -> Iterator[Finding]:
    """What a folder of files lacks, so that exo would wait for it for ever, or its runner would die."""
    prefix = f"{folder(model)}/"
    mine = {name.removeprefix(prefix): size for name, size in files.items() if name.startswith(prefix)}
    if not mine:
        return
    lacking = [name for name in _BESIDE if name not in mine]
    if not any(name.endswith(INDEX) for name in mine):
        lacking.append(f"model{INDEX}")
    if not any(name.endswith(".safetensors") for name in mine):
        lacking.append("its .safetensors")
    if lacking:
        message = f"{model} lacks {', '.join(lacking)}, and exo would never call it complete"
        yield Finding(_WHERE, message, "take the whole repository: no `files`, or more of them")
    empty = [name for name, size in mine.items() if size == 0 and name.endswith((".safetensors", INDEX))]
    if empty:
        yield Finding(_WHERE, f"{model} has empty files, which exo takes for whole ones: {', '.join(empty)}")


@cache
def _known() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name("known.json")
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return found


def known(version: str) -> Mapping[str, int]:
    """exo's built-in models: name → bytes of its weights. Empty for a version of which none was recorded."""
    return _known().get(version, {})


def fitting(version: str, room: int) -> list[tuple[str, int]]:
    """Which built-in models fit ``room`` bytes of the nodes' memory together; the largest first."""
    found = [(name, size) for name, size in known(version).items() if size <= room]
    return sorted(found, key=lambda one: (-one[1], one[0]))
