"""No engine: there is nothing to join."""

from __future__ import annotations

NAME = "none"


def units(_cluster, _node):
    return ()


def doors(_cluster, _node):
    return ()


def url(_cluster):
    return ""


def members(_cluster, _look):
    return {}


def mend(_cluster, _look):
    return ()
