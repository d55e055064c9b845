"""What a process that the builder starts knows of whoever started the builder."""

from __future__ import annotations

import pytest

from builder.run import environment


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"])
def test_a_child_trusts_whom_the_user_trusts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that looks into https, each program has a name of its own for the proxy's authority."""
    monkeypatch.setenv(name, "/etc/lab.pem")
    assert environment()[name] == "/etc/lab.pem"


def test_a_child_knows_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PATH", "/somewhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    known = environment({"DEBUG": "1"})
    assert "HF_TOKEN" not in known
    assert (known["LANG"], known["DEBUG"]) == ("C.UTF-8", "1")
    assert "/somewhere" not in known["PATH"] and "/usr/bin" in known["PATH"].split(":")
