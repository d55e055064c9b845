"""Talks to a running control service: for `builder reinstall` and `builder watch`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from builder.errors import BuilderError

_TIMEOUT = 10  # seconds
_HINT = "is it running? builder serve CLUSTER"


class Client:
    """Of the service whose state is in the folder ``state``. Raises BuilderError if none runs."""

    def __init__(self, state: Path) -> None:
        try:
            self._url = str(json.loads((state / "control.json").read_bytes())["url"])
            self._token = (state / "token").read_text().strip()
        except FileNotFoundError as error:
            raise BuilderError(f"no server serves this cluster from {state}", hint=_HINT) from error
        except PermissionError as error:
            raise BuilderError(
                f"{error.filename} may not be read by this user", hint="sudo, as for serve"
            ) from error

    def state(self) -> dict[str, Any]:
        return self._call("GET", "/v1/state")

    def order(self, nodes: Sequence[str]) -> None:
        self._call("POST", "/v1/order", {"nodes": list(nodes)})

    def take_back(self, nodes: Sequence[str]) -> None:
        self._call("POST", "/v1/take-back", {"nodes": list(nodes)})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            with requests.Session() as session:
                session.trust_env = (
                    False  # a proxy has no way into the cluster's network, and must not see the token
                )
                reply = session.request(
                    method, self._url + path, json=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
                )
            data: dict[str, Any] = reply.json()
        except (requests.RequestException, ValueError) as error:
            raise BuilderError(
                f"the control service at {self._url} does not answer: {error}", hint=_HINT
            ) from error
        if not reply.ok:
            raise BuilderError(f"the control service refused: {data.get('error', reply.status_code)}")
        return data
