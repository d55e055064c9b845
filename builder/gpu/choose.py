"""Which driver, which modules, which CUDA: pure, from the table, or every reason why none.

A reason is a :class:`Finding` at the key that would have to change, and says what would work.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from builder.gpu.table import Archive, Branch, Model, Modules, Table, version
from builder.spec.finding import Finding, Keys

WHERE: Keys = ("gpu",)


@dataclass(frozen=True)
class Wish:
    """What the spec says, and the release that it is for. None leaves it to the table.

    ``cuda``: a major, a toolkit's version, or "none". ``install``: which packages of CUDA a node gets, "none",
    "runtime" or "toolkit". ``compile``: modules are to be compiled even where signed ones exist.
    """

    model: str
    distribution: str
    release: str
    source: str = "archive"
    driver: str | None = None
    modules: str | None = None
    cuda: str | None = None
    install: str = "none"
    compile: bool = False


@dataclass(frozen=True)
class Choice:
    """What will be built. ``cuda``: what engines may bring, "12", "13" or None; ``components``: the archive's."""

    model: Model
    archive: Archive
    branch: Branch
    flavour: str
    modules: Modules
    cuda: str | None
    packages: tuple[str, ...]
    components: tuple[str, ...]
    compiled: bool


def choose(wish: Wish, table: Table) -> Choice | tuple[Finding, ...]:
    """The choice, or everything that is wrong with the wish."""
    model = table.models.get(wish.model)
    if model is None:
        return (_unknown_model(wish.model, table),)
    archive = table.archive(wish.distribution, wish.release, wish.source)
    if archive is None:
        message = f"nothing is known of a driver for {wish.distribution} {wish.release} from {wish.source}"
        return (Finding((*WHERE, "source"), message, _elsewhere(model, table)),)
    branch = _branch(wish, model, archive, table)
    if isinstance(branch, Finding):
        return (branch,)
    flavour = _flavour(wish, model, branch)
    if isinstance(flavour, Finding):
        return (flavour,)
    wrong = tuple(_cuda_findings(wish, model, branch, archive, table))
    if wrong:
        return wrong
    modules = branch.modules[flavour]
    compiled = modules.prebuilt is None or wish.compile
    packages, components = branch.packages, archive.components
    if archive.cuda and wish.install != "none":
        packages += archive.cuda.runtime if wish.install == "runtime" else archive.cuda.toolkit
        components += archive.cuda.components
    extra = _extra(wish, model, branch, table)
    return Choice(model, archive, branch, flavour, modules, extra, packages, components, compiled)


def can_drive(model: Model, branch: Branch) -> bool:
    """Whether a branch knows the card, and has modules that drive it."""
    known = version(branch.version) >= version(model.driver)
    given_up = model.last is not None and version(branch.name) > version(model.last)
    return known and not given_up and any(flavour in branch.modules for flavour in model.modules)


def _unknown_model(name: str, table: Table) -> Finding:
    like = name.lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-").removeprefix("geforce-")
    # First its own kin: "rtx-5060-ti" for one with 8 or 16 GB, "rtx-3060" for "rtx-3060-laptop".
    near = [key for key in table.models if key.startswith(like) or like.startswith(f"{key}-")]
    near += [key for key in difflib.get_close_matches(like, table.models, n=3, cutoff=0.5) if key not in near]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table.models)}"
    return Finding((*WHERE, "model"), f"{name} is not in the table of GPUs", hint)


def _branch(wish: Wish, model: Model, archive: Archive, table: Table) -> Branch | Finding:
    fitting = [branch for branch in archive.branches.values() if can_drive(model, branch)]
    if wish.driver is None:
        # The newest: an older one is kept in an archive for older cards.
        if fitting:
            wanted = _least_for_cuda(wish.cuda, table)
            enough = [one for one in fitting if wanted is None or version(one.version) >= version(wanted)]
            return max(enough or fitting, key=lambda one: version(one.name))
        offers = ", ".join(archive.branches)
        message = f"the {model.name} needs driver {_needs(model)}, and {_at(archive)} has {offers}"
        return Finding((*WHERE, "model"), message, _elsewhere(model, table))
    branch = archive.branches.get(wish.driver)
    where = (*WHERE, "driver")
    if branch is None:
        offers = ", ".join(archive.branches)
        message = f"{_at(archive)} has no driver {wish.driver}; it has {offers}"
        names = [one.name for one in fitting]
        return Finding(where, message, f"take {' or '.join(names)}" if names else _elsewhere(model, table))
    if can_drive(model, branch):
        return branch
    old = version(branch.version) < version(model.driver)
    state = "is too old" if old else "does not drive it"
    message = f"the {model.name} needs driver {_needs(model)}, and {branch.version} {state}"
    names = [one.name for one in fitting]
    return Finding(where, message, f"take {' or '.join(names)}" if names else _elsewhere(model, table))


def _flavour(wish: Wish, model: Model, branch: Branch) -> str | Finding:
    """Open modules wherever they drive the card: NVIDIA recommends them, and Blackwell has no others."""
    fitting = [flavour for flavour in model.modules if flavour in branch.modules]
    if wish.modules is None:
        return fitting[0]
    if wish.modules in fitting:
        return wish.modules
    why = "cannot drive it" if wish.modules not in model.modules else f"do not exist in {branch.name}"
    message = f"the {wish.modules} modules {why}: the {model.name} is of the {model.architecture} generation"
    return Finding((*WHERE, "modules"), message, f"write {' or '.join(fitting)}, or leave it out")


def _cuda_findings(wish: Wish, model: Model, branch: Branch, archive: Archive, table: Table) -> Iterator[Finding]:
    where = (*WHERE, "cuda")
    if wish.cuda not in (None, "none"):
        assert wish.cuda is not None
        least = _least_for_cuda(wish.cuda, table)
        if least is None:
            known = ", ".join((*table.extras, *table.cuda))
            yield Finding(where, f"CUDA {wish.cuda} is not known", f"known: {known}, none")
            return
        if version(branch.version) < version(least):
            best = _newest_cuda(branch, table)
            newer = [
                one.name
                for one in archive.branches.values()
                if can_drive(model, one) and version(one.version) >= version(least)
            ]
            message = f"CUDA {wish.cuda} needs driver {least} or later, and {branch.name} is {branch.version}"
            options = [*(f"driver {name}" for name in newer), *([f"cuda {best}"] if best else [])]
            ways = [f"take {' or '.join(options)}"] if options else []
            if not newer:
                ways.append(_elsewhere(model, table, least))
            yield Finding(where, message, "; ".join(ways))
        yield from _cuda_and_card(wish.cuda, model, where)
    if wish.install != "none":
        here = (*WHERE, "install")
        if archive.cuda is None:
            hint = "write install: none, and take an engine that brings its own"
            yield Finding(here, f"no packages of CUDA are known in {_at(archive)}", hint)
        elif wish.cuda == "none":
            yield Finding(here, f"installs CUDA's {wish.install}, and cuda is none", "take one of them away")
        elif wish.cuda is not None and not _same(wish.cuda, archive.cuda.version):
            message = f"{_at(archive)} has CUDA {archive.cuda.version}, not {wish.cuda}"
            yield Finding(here, message, f'write cuda: "{archive.cuda.version}", or install: none')
        else:
            yield from _cuda_and_card(archive.cuda.version, model, here)


def _cuda_and_card(cuda: str, model: Model, where: Keys) -> Iterator[Finding]:
    """A toolkit that makes no code for the card. A bare major is an engine's choice of any of its minors."""
    minor = "." in cuda
    first, last = version(model.cuda), version(model.last_cuda) if model.last_cuda else None
    if (version(cuda) < first) if minor else version(cuda)[0] < first[0]:
        message = f"CUDA {cuda} makes no code for the {model.name} (compute capability {model.compute})"
        yield Finding(where, message, f"take CUDA {model.cuda} or later")
    elif last is not None and ((version(cuda) > last) if minor else version(cuda)[0] > last[0]):
        message = f"CUDA {cuda} makes no code for the {model.name} (compute capability {model.compute}) any more"
        yield Finding(where, message, f"take CUDA {model.last_cuda} or earlier")


def _least_for_cuda(cuda: str | None, table: Table) -> str | None:
    """The least driver for a major or a toolkit's version; None for what is not known, or no wish."""
    if cuda is None or cuda == "none":
        return None
    extra = table.extras.get(cuda)
    return extra.driver if extra else table.cuda.get(cuda)


def _newest_cuda(branch: Branch, table: Table) -> str | None:
    fitting = [cuda for cuda, least in table.cuda.items() if version(least) <= version(branch.version)]
    return max(fitting, key=version, default=None)


def _extra(wish: Wish, model: Model, branch: Branch, table: Table) -> str | None:
    """The newest CUDA of engines' wheels that driver and card both know, at most what the spec says."""
    if wish.cuda == "none":
        return None
    fitting = []
    for major, extra in table.extras.items():
        enough = version(branch.version) >= version(extra.driver)
        wanted = wish.cuda is None or version(wish.cuda)[0] == int(major)
        if enough and wanted and not list(_cuda_and_card(major, model, WHERE)):
            fitting.append(major)
    return max(fitting, key=int, default=None)


def _same(wanted: str, found: str) -> bool:
    parts = version(wanted)
    return version(found)[: len(parts)] == parts


def _needs(model: Model) -> str:
    return f"{model.driver} or later" + (f", up to {model.last}" if model.last else "")


def _at(archive: Archive) -> str:
    owner = "NVIDIA's archive" if archive.source == "nvidia" else "the archive"
    return f"{owner} for {archive.distribution} {archive.release}"


def _elsewhere(model: Model, table: Table, least: str = "0") -> str:
    """Every way to a driver for the card, of that version or later."""
    ways = []
    for archive in table.archives:
        drives = (branch for branch in archive.branches.values() if can_drive(model, branch))
        names = [branch.name for branch in drives if version(branch.version) >= version(least)]
        if names:
            source = ", source nvidia" if archive.source == "nvidia" else ""
            ways.append(f"{archive.distribution} {archive.release}{source} (driver {', '.join(names)})")
    kind = f"driver {least} or later" if least != "0" else "driver"
    return f"what works: {'; '.join(ways)}" if ways else f"no archive in the table has a {kind} for it"
