"""Which GGUF is served, and which files it is made of. Pure.

A model in several files is called ``PREFIX-00001-of-00003.gguf`` and so on; llama.cpp is given the first and finds
the others beside it, by their names (``llama_split_path``; src/llama-model-loader.cpp refuses any but the first).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from builder.engines.kind import Files, Finding
from builder.spec.rules import MODEL_PATH

if TYPE_CHECKING:
    from builder.spec.model import Model

FORMATS = (".gguf",)
_PART = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})\.gguf")
_SHOWN = 5  # names in a hint


def parts(name: str) -> tuple[str, ...]:
    """Every file of the model that the file ``name`` belongs to, in order; itself alone if it is not split."""
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    prefix, count = match.groups()
    every = tuple(f"{prefix}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1))
    return every if name in every else (name,)


def served(models: Sequence[Model], wanted: str | None, files: Files) -> str | None:
    """The model that is served; None if the spec leaves it open, and it is not clear or takes a lock to know."""
    if wanted:
        return wanted
    names, folders = _known(models, files)
    fitting = _servable(names)
    return fitting[0] if len(fitting) == 1 and not folders else None


def weights(models: Sequence[Model], wanted: str | None, files: Files) -> tuple[str, ...]:
    """The files that are loaded, as far as there are any by the lock."""
    name = served(models, wanted, files)
    return tuple(part for part in parts(name) if part in files) if name and files else ()


def complaint(models: Sequence[Model], wanted: str | None, files: Files) -> Finding | None:
    """Why no model can be served, if that can be said already. ``models`` may be those of a draft."""
    if files is None and any(not model or not model.name for model in models):
        return None
    names, folders = _known(models, files)
    name = served(models, wanted, files)
    path = ("engine", "model") if wanted else ("engine",)
    if name is None:
        return _unclear(names, folders)
    inside = name.partition("/")[0] in folders and "/" in name
    if name not in names and not inside:
        return Finding(path, f"no model is called {name}", _there_is(names, folders))
    if not name.endswith(FORMATS):
        return Finding(path, f"{name} is not a GGUF, and llama.cpp loads nothing else")
    every = parts(name)
    if name != every[0]:
        hint = f"name {every[0]}: llama.cpp finds the rest beside it"
        return Finding(path, f"{name} is not the first part of its model", hint)
    lacking = [part for part in every if part not in names]
    if lacking and not inside:
        message = f"the model {name} lacks {len(lacking)} of its {len(every)} parts: {_some(lacking)}"
        return Finding(path, message, "add them to models, or to the `files` of their repository")
    if not re.fullmatch(MODEL_PATH, name):
        hint = "give the file by url or path, with a plain name of its own"
        return Finding(path, f"{name} has a name that cannot stand in a unit", hint)
    return None


def _known(models: Sequence[Model], files: Files) -> tuple[list[str], list[str]]:
    """The names of all model files, and of the repositories of which no file is known yet."""
    if files is not None:
        return list(files), []
    given = [model for model in models if model and model.name]
    return [m.name for m in given if m.repo is None], [m.name for m in given if m.repo is not None]


def _servable(names: Collection[str]) -> list[str]:
    """What llama.cpp can be given: whole models, and the first file of each that is split."""
    return [name for name in names if name.endswith(FORMATS) and parts(name)[0] == name]


def _unclear(names: Sequence[str], folders: Sequence[str]) -> Finding | None:
    rests_on = (("models",), ("engine", "model"))
    fitting = _servable(names)
    if len(fitting) > 1:
        hint = f"say so under engine.model; {_there_is(names, folders)}"
        return Finding(("engine",), "it is not clear which model to serve", hint, rests_on)
    if folders:
        return None
    return Finding(("engine",), "llama.cpp needs a model, a GGUF", "add one to models", rests_on)


def _there_is(names: Sequence[str], folders: Sequence[str]) -> str:
    there = [*(_servable(names) or names), *(f"{folder}/FILE.gguf" for folder in folders)]
    return f"there is: {_some(there)}" if there else "there are no models"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
