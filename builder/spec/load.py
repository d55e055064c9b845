"""Read a spec: every mistake at once, each with its line, or one frozen :class:`Cluster`."""

from __future__ import annotations

from pathlib import Path

from builder.errors import BuilderError, Exit, Mistake, SpecError
from builder.spec import checks, local, tree
from builder.spec.finding import Finding
from builder.spec.model import Cluster
from builder.spec.read import Keys, Reader, dotted, line_of

LIMIT = 8 << 20  # bytes; ten thousand nodes are well below


def load(path: Path) -> Cluster:
    """Read a spec file; relative paths in it start at its folder.

    Raises SpecError with every mistake, or BuilderError (SPEC) when there is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise BuilderError(
            f"{path}: no such file", hint="`builder init` writes a spec to start from", code=Exit.SPEC
        ) from None
    except OSError as error:
        raise BuilderError(f"{path}: cannot be read: {error.strerror}", code=Exit.SPEC) from None
    if len(data) > LIMIT:
        raise SpecError(str(path), [Mistake(0, "(file)", f"is over {LIMIT >> 20} MiB: this is not a spec")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        mistake = Mistake(line, "(file)", "is not UTF-8 text", "save it as UTF-8")
        raise SpecError(str(path), [mistake]) from None
    return loads(text, source=str(path), base=path.parent)


def loads(text: str, *, source: str = "cluster.yaml", base: Path = Path()) -> Cluster:
    """Read a spec from its text. ``source`` names it in messages; relative paths start at ``base``.

    Raises SpecError with every mistake.
    """
    try:
        root = tree.parse(text)
    except tree.TreeError as error:
        raise SpecError(source, [Mistake(error.line, "(file)", error.message, error.hint)]) from None
    if root is None:
        hint = "`builder init` writes a spec to start from"
        raise SpecError(source, [Mistake(0, "(file)", "is empty", hint)])
    reader = Reader()
    draft = reader.cluster(root)
    found = local.resolve(draft, base)
    whole = draft.model_copy(update={"engine": draft.engine.model_copy(update=found.engine)})
    for finding in (*found.findings, *checks.check(whole)):
        if not _in_doubt(finding, reader.bad):
            line = line_of(root, finding.path)
            reader.mistakes.append(Mistake(line, dotted(finding.path), finding.message, finding.hint))
    if reader.mistakes:
        raise SpecError(source, reader.mistakes)
    return _with(draft, found)


def draft(text: str, source: str) -> Cluster:
    """What could be read of a spec, whatever is wrong with it. Raises SpecError if it is no spec at all."""
    try:
        root = tree.parse(text)
    except tree.TreeError as error:
        raise SpecError(source, [Mistake(error.line, "(file)", error.message, error.hint)]) from None
    if root is None:
        raise SpecError(source, [Mistake(0, "(file)", "is empty", "`builder init` writes one")])
    return Reader().cluster(root)


def _with(cluster: Cluster, found: local.Local) -> Cluster:
    """The cluster with what its files held."""
    access, storage = cluster.access, cluster.storage
    if found.keys != access.ssh_keys:
        access = access.model_copy(update={"ssh_keys": found.keys})
    if storage.luks is not None:
        luks = storage.luks.model_copy(update={"passphrase": found.passphrase})
        storage = storage.model_copy(update={"luks": luks})
    engine = cluster.engine.model_copy(update=found.engine)
    return cluster.model_copy(update={"access": access, "storage": storage, "gpu": found.gpu, "engine": engine})


def _in_doubt(finding: Finding, bad: set[Keys]) -> bool:
    """Whether a finding rests on something that is wrong itself, and so may only follow from that."""
    return any(
        path[:length] in bad for path in (finding.path, *finding.rests_on) for length in range(len(path) + 1)
    )
