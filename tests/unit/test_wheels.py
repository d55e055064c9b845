"""Python packages of an engine: which file is taken, what uv is asked, and how a tree is laid out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.sources import wheels
from builder.sources.wheels import Wheel, Wheels

TAGS = wheels.supported("3.13")
SHA = "ab" * 32


def entry(*files: str, sdist: str | None = None) -> dict[str, object]:
    """A package as uv's pylock.toml has it."""
    found: dict[str, object] = {"name": "x", "version": "1.0"}
    found["wheels"] = [{"url": f"https://h/{file}", "size": 1, "hashes": {"sha256": SHA}} for file in files]
    if sdist:
        found["sdist"] = {"url": f"https://h/{sdist}", "size": 2, "hashes": {"sha256": SHA}}
    return found


def chosen(*files: str) -> str:
    return wheels._wheel(entry(*files), TAGS, "3.13").file


def test_the_file_for_the_nodes_python_and_glibc_is_taken_and_not_this_machines() -> None:
    mine = "x-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    node = "x-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"
    newer = "x-1.0-cp313-cp313-manylinux_2_99_x86_64.whl"
    assert chosen(mine, node, newer, "x-1.0-py3-none-any.whl", "x-1.0-cp313-cp313-macosx_14_0_arm64.whl") == node


@pytest.mark.parametrize(
    "file",
    [
        "x-1.0-py3-none-any.whl",
        "x-1.0-cp37-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "x-1.0-py3-none-manylinux_2_35_x86_64.whl",
    ],
)
def test_a_file_that_fits_every_python_will_do(file: str) -> None:
    assert chosen("x-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", file) == file


@pytest.mark.parametrize(
    "file",
    ["x-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "x-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl", "x.whl"],
)
def test_a_package_without_a_wheel_for_the_nodes_is_named(file: str) -> None:
    with pytest.raises(BuilderError, match=r"x 1\.0 has no wheel for Python 3\.13") as caught:
        chosen(file)
    assert caught.value.code is Exit.SPEC


def test_a_source_archive_is_taken_for_what_is_built_only() -> None:
    assert wheels._source(entry(sdist="x-1.0.tar.gz")).file == "x-1.0.tar.gz"
    with pytest.raises(BuilderError, match="has no source archive"):
        wheels._source(entry("x-1.0-py3-none-any.whl"))


def test_uv_is_asked_for_the_nodes_platform_and_never_to_run_anybodys_code(tmp_path: Path) -> None:
    asked = [str(word) for word in wheels.argv(Wheels(("ray==2.0",), torch="cpu"), tmp_path)]
    assert asked[1:] == [
        *("-m", "uv", "pip", "compile", f"{tmp_path}/requirements"),
        *("--constraints", f"{tmp_path}/constraints", "--excludes", f"{tmp_path}/excluded"),
        *("--format", "pylock.toml", "--output-file", f"{tmp_path}/pylock.toml", "--quiet"),
        *("--python-version", "3.13", "--no-python-downloads", "--no-sources"),
        *("--python-platform", "x86_64-manylinux_2_40", "--prerelease", "if-necessary-or-explicit"),
        *("--torch-backend", "cpu", "--no-build"),
    ]


def test_the_index_is_uvs_own_setting_else_pips(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(wheels, "_of_pip", lambda: {"index-url": "https://pip/simple"})
    assert wheels.environment()["UV_DEFAULT_INDEX"] == "https://pip/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv/simple")
    assert wheels.environment()["UV_DEFAULT_INDEX"] == "https://uv/simple"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("error: No solution found when resolving dependencies", Exit.SPEC),
        ("error: Request failed\n  cause: error sending request for url (https://x/)", Exit.FETCH),
    ],
)
def test_what_uv_refuses_is_told_from_an_index_out_of_reach(said: str, code: Exit) -> None:
    refusal = wheels._refusal(said)
    assert refusal.code is code and said.splitlines()[-1] in str(refusal)


def test_a_file_that_the_index_no_longer_has_is_named_with_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_compile", lambda *_, **__: [entry("x-1.0-py3-none-any.whl")])
    gone = Wheel("x", "1.0", "x-1.0-py3-none-any.whl", 1, "cd" * 32)
    with pytest.raises(BuilderError, match=f"does not offer x-1.0-py3-none-any.whl(?s:.*){'cd' * 32}"):
        wheels.fetch([gone], Cache(tmp_path), python="3.13")
