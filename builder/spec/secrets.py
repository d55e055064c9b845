"""Makes what a spec names as a secret of the cluster's own: once, outside of the spec, and never shown."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.spec.load import draft


def make(spec: Path) -> list[Path]:
    """Make every missing secret file, readable by its owner alone; returns those that were made.

    Raises SpecError for a file that is no spec, BuilderError (SPEC) for a place that cannot be written.
    """
    try:
        cluster = draft(spec.read_text(encoding="utf-8"), str(spec))
    except (OSError, UnicodeDecodeError) as error:
        raise BuilderError(f"{spec} cannot be read: {error}", code=Exit.SPEC) from error
    made = []
    for file in cluster.engine.files(cluster.name) if cluster.engine and cluster.name else ():
        path = spec.parent / Path(file.path).expanduser()
        if not file.secret or path.exists():
            continue
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
                target.write(f"{secrets.token_hex(32)}\n")
        except OSError as error:
            raise BuilderError(f"{path} cannot be written: {error.strerror}", code=Exit.SPEC) from error
        made.append(path)
    return made
