"""Rendering: leaves keep their types, what is undefined is an error, what is omitted is gone."""

from __future__ import annotations

import jinja2
import pytest

from builder import cpio, render
from builder.render import OMIT, File

CONTEXT = {"name": "n1", "keys": ["a"], "none": None, "omit": OMIT}


@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        ("plain", "plain"),
        ("{{ keys }}", ["a"]),
        ("{{ name == 'n1' }}", True),
        ("{{ name }}-{{ name }}", "n1-n1"),
        ({"a": "{{ omit }}", "b": 1}, {"b": 1}),
        ({"outer": {"a": "{{ omit }}"}, "b": {}}, {"b": {}}),
        (["{{ omit }}", "{{ none or omit }}", "x"], ["x"]),
        ("{{ {'to': name} }}", {"to": "n1"}),
    ],
)
def test_leaves(given: object, rendered: object) -> None:
    assert render._render_leaves(given, CONTEXT) == rendered


def test_an_undefined_name_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render._render_leaves("x{{ nme }}", CONTEXT)
    with pytest.raises(jinja2.UndefinedError):
        str(render._render_leaves("{{ nme.x }}", CONTEXT))


def test_yaml_that_would_be_read_as_something_else_is_quoted() -> None:
    assert render.dump_yaml({"mac": "52:54:00:12:34:56", "on": "on"}) == b"mac: '52:54:00:12:34:56'\n'on': 'on'\n"


def test_an_archive_is_the_same_twice_and_padded() -> None:
    files = [File("/b/c", 0o644, b"12345"), File("/a", 0o777, link="b/c")]
    once = cpio.archive(files, 1_700_000_000)
    assert once == cpio.archive(reversed(files), 1_700_000_000)
    assert len(once) % 4 == 0
    assert once.count(b"070701") == 4  # a, b, b/c and the trailer
    assert b"TRAILER!!!" in once
