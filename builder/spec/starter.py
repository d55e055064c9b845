"""The commented spec that ``builder init`` writes."""

from __future__ import annotations

import jinja2

from builder import resources
from builder.errors import BuilderError, Exit
from builder.spec.rules import label
from builder.spec.sizes import RuleError


def starter(name: str, schema_path: str) -> str:
    """A spec called ``name`` to start from; editors find its schema at ``schema_path``.

    Raises BuilderError (SPEC) if no cluster can have this name.
    """
    try:
        label(name)
    except RuleError as error:
        raise BuilderError(f"the cluster's name {error.message}", hint=error.hint, code=Exit.SPEC) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.root() / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("cluster.yaml.j2").render(name=name, schema_path=schema_path)
