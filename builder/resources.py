"""Where the builder's own text and keys lie: templates/, cloud-init/, overlays/ and keys/."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def root() -> Path:
    """The folder that holds templates/, cloud-init/, overlays/ and keys/.

    An installed wheel carries them inside the package (pyproject.toml, force-include); a checkout has them
    beside it.
    """
    inside = _PACKAGE / "data"
    return inside if inside.is_dir() else _PACKAGE.parent
