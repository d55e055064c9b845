"""The gpu layer: the driver's kernel modules and what holds the node to them, proven inside the layers.

Modules that the distribution made and signed are packages, and so in the base already; then this layer has only
our files. The proof is the node's own program (``overlays/gpu``), which runs there again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from builder import console, gpu, render, sandbox
from builder.cache import Cache
from builder.errors import BuilderError
from builder.files import need_room
from builder.gpu import packages as gpu_packages
from builder.gpu.content import files as gpu_files
from builder.layers import modules, squashfs
from builder.plan import Layer, Plan
from builder.run import run
from builder.spec.gpu import Gpu

PROOF = "/usr/lib/builder/gpu/proof"
_ROOM = 3 << 30  # bytes; the root for compiling takes 1.1 GiB, and a kernel's copy of the source 0.3 GiB


def make(plan: Plan, layer: Layer, base: Path, folder: Path, packages: Mapping[str, Path], cache: Cache) -> Path:
    """The gpu layer's squashfs, from the cache if it is there.

    ``packages``: blobs by sha256; ``folder``: the spec's. Raises BuilderError: modules that do not compile (with
    the compiler's first error), or a proof that fails.
    """
    made = cache.product("gpu", layer.digest) / layer.file
    if made.exists():
        return made
    choice, wanted = gpu.choice_of(plan.cluster), plan.cluster.gpu
    assert choice is not None and wanted is not None and plan.lock is not None
    kernels = gpu_packages.kernels(package.name for package in plan.lock.packages)
    what = f"{choice.flavour} modules of {choice.branch.name} for {', '.join(kernels)}"
    with (
        console.step(f"gpu layer: {'compiling ' if choice.compiled else ''}{what}"),
        cache.scratch("gpu") as work,
        cache.make("gpu", layer.digest) as part,
    ):
        tree, whole = work / "tree", work / "whole"
        for target in (tree, whole):
            target.mkdir()
            for file in gpu_files(plan.cluster):
                render.write(file, target)
        # Lists of modules are of all of them, and so are proofs.
        argv: list[str | Path] = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force"]
        run([*argv, "-dest", whole, base, "usr/lib/modules"], step="unpacking the kernel's modules")
        if choice.compiled:
            need_room(work, _ROOM, step="the gpu layer")
            _compile(plan, kernels, folder, packages, work)
        _only_what_is_new(whole, tree)
        root = sandbox.tree(base, plan.base.digest, cache)
        require_proof(root, whole)
        unit = ["systemd-analyze", "verify", "--man=no", "nvidia-persistenced.service"]
        sandbox.inside(root, unit, step="checking nvidia-persistenced.service with our drop-in", over=whole)
        squashfs.date(tree, plan.epoch)
        options = squashfs.environment(plan.epoch)
        run(squashfs.from_tree(tree, part / layer.file), step="the gpu layer", env=options)
    return made


def _compile(plan: Plan, kernels: tuple[str, ...], folder: Path, packages: Mapping[str, Path], work: Path) -> None:
    """The modules for every kernel, laid among the kernel's own in ``work/whole``; all lists are written anew."""
    assert plan.lock is not None and plan.cluster.gpu is not None
    wanted, root = plan.cluster.gpu, work / "root"
    modules.root_of(plan.lock.gpu, packages, root)
    source = modules.source_in(root)
    modules.patch(root, source, {folder / patch.path: patch.sha256 for patch in wanted.patches})
    key = modules.Key(folder / wanted.mok.key, folder / wanted.mok.certificate) if wanted.mok else None
    if key is not None:
        modules.require_pair(root, key)
    for kernel in kernels:
        built = work / "built" / kernel
        modules.build(root, source, kernel, built, works(wanted))
        if key is not None:
            modules.sign(root, kernel, built, key)
        shutil.copytree(built, work / "whole/usr/lib/modules" / kernel / modules.FOLDER)
        modules.depmod(root, kernel, work / "whole")


def works(wanted: Gpu) -> str:
    """What to do about modules that do not compile."""
    ways = ["a patch (gpu.patches)"]
    if wanted.source == "archive":
        ways.append("a newer driver from NVIDIA's archive (gpu.source: nvidia)")
    ways.append("an Ubuntu release, whose modules are compiled by Ubuntu")
    return f"the kernel is newer than this driver knows: what helps is {', '.join(ways[:-1])} or {ways[-1]}"


def require_proof(root: Path, over: Path) -> None:
    """Run the node's own proof with ``over`` laid over the base. Raises BuilderError with every problem."""
    done = sandbox.inside(root, ["python3", "-B", PROOF], step="proving the gpu layer", over=over, check=False)
    try:
        results = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise BuilderError(f"the proof of the gpu layer did not run to its end\n  | {said}") from None
    problems = [f"  | {one['name']}: {one['said']}" for one in results if one["state"] == "problem"]
    if problems or done.returncode != 0:
        raise BuilderError(
            "the gpu layer does not pass its proof, and is not used\n" + "\n".join(problems),
            hint="`builder lock --update` takes kernel and driver anew; the archive may have been between two",
        )


def _only_what_is_new(whole: Path, tree: Path) -> None:
    """Copy to ``tree`` what of ``whole``'s modules is not the base's: our folder, and the lists that name it."""
    for kernel in sorted((whole / "usr/lib/modules").iterdir()):
        ours = kernel / modules.FOLDER
        if not ours.exists():
            continue
        target = tree / "usr/lib/modules" / kernel.name
        shutil.copytree(ours, target / modules.FOLDER)
        for path in kernel.glob("modules.*"):
            if path.name not in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                shutil.copy(path, target / path.name)
