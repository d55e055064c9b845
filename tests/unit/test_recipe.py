"""Engines from source: edits that must fit, what a step may reach, and a lock that keeps all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import lock, sandbox
from builder.engines.recipe import Edit, Recipe
from builder.errors import BuilderError
from builder.layers import fromsource
from builder.lock import Lock
from builder.sources.git import LockedSource
from builder.sources.wheels import Wheel

EDIT = Edit("exo", "a.py", "old\n", "new\nold\n")


def test_an_edit_is_made_where_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x\nold\ny\n")
    fromsource.mend(tmp_path, EDIT)
    assert (tmp_path / "a.py").read_text() == "x\nnew\nold\ny\n"


@pytest.mark.parametrize("text", ["x\n", "old\nold\n", None])
def test_an_edit_for_another_source_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "a.py").write_text(text)
    with pytest.raises(BuilderError, match=r"exo: a\.py has [02] of the places"):
        fromsource.mend(tmp_path, EDIT)


def words(*, network: bool = False) -> list[str]:
    return [str(word) for word in sandbox.bwrap_argv(Path("/r"), ["x"], {}, as_root=True, network=network)]


def test_only_a_step_that_asks_for_it_has_a_network() -> None:
    assert "--unshare-net" in words() and "/etc/resolv.conf" not in words()
    assert "--unshare-net" not in words(network=True) and "/etc/resolv.conf" in words(network=True)


def test_a_wheel_that_is_built_takes_the_place_of_the_one_in_the_lock() -> None:
    recipe = Recipe((), (), (), (), wheels=("fork",))
    pinned = [Wheel(name, "1", f"{name}-1-py3-none-any.whl", 1, "ab" * 32) for name in ("fork", "other")]
    assert [wheel.name for wheel in pinned if fromsource.is_pinned(wheel, recipe)] == ["other"]
    assert not fromsource.is_pinned(Wheel("x", "1", "x-1.tar.gz", 1, "ab" * 32), None)


def test_a_lock_keeps_wheels_sources_and_where_torch_came_from(tmp_path: Path) -> None:
    whole = Lock(
        {"cluster": "x"},
        1,
        (),
        (),
        wheels=(Wheel("a", "1", "a-1-py3-none-any.whl", 3, "ab" * 32),),
        sources=(LockedSource("exo", "c" * 40, "cd" * 32, 5),),
        torch="cpu",
    )
    lock.save(whole, tmp_path / "x.lock")
    assert lock.load(tmp_path / "x.lock") == whole
