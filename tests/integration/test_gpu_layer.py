"""The gpu layer with the real driver, compiler and kernel of Debian's archive.

Without a cache it takes some minutes, nearly all of it compiling; the layer is kept in the user's cache, so that
the next run has only what must fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import build, cpio, inputs, plan, sandbox
from builder.cache import Cache, default_root
from builder.errors import BuilderError, Exit
from builder.files import sha256_of
from builder.gpu import packages as gpu_packages
from builder.gpu.content import FACTS
from builder.layers import base, gpu, modules
from builder.plan import Plan
from builder.run import run
from builder.spec.load import load

pytestmark = [pytest.mark.tools, pytest.mark.gpu]

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Built:
    """The layer, unpacked over the base's modules; ``tree`` is the base, ``packages`` the blobs."""

    todo: Plan
    layer: Path
    base: Path
    tree: Path
    whole: Path
    packages: Mapping[str, Path]

    @property
    def kernel(self) -> str:
        assert self.todo.lock is not None
        (kernel,) = gpu_packages.kernels(package.name for package in self.todo.lock.packages)
        return kernel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("gpu")
    shutil.copytree(EXAMPLES, folder / "examples")
    spec, cache = folder / "examples/rtx3090-pair.yaml", Cache(default_root())
    with cache.locked():
        cluster = load(spec)
        todo = plan.make(cluster, build.locked(cluster, spec, cache))
        blobs = inputs.packages(todo, cache)
        assert todo.lock is not None
        foundation = base.make(todo, blobs, cache)
        (wanted,) = (one for one in todo.layers if one.name == "gpu")
        layer = gpu.make(todo, wanted, foundation, spec.parent, blobs, cache)
        tree = sandbox.tree(foundation, todo.base.digest, cache)
    whole = folder / "whole"
    for source, *only in ((foundation, "usr/lib/modules"), (layer,)):
        run(["unsquashfs", "-q", "-n", "-f", "-no-xattrs", "-d", whole, source, *only], step="unpacking")
    everything = {package.sha256: cache.blob(package.sha256) for package in todo.lock.gpu}
    yield Built(todo, layer, foundation, tree, whole, everything)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def root(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root for compiling."""
    folder = tmp_path_factory.mktemp("compile")
    assert built.todo.lock is not None
    modules.root_of(built.todo.lock.gpu, built.packages, folder / "root")
    yield folder / "root"
    shutil.rmtree(folder)


def proof(built: Built, over: Path) -> dict[str, dict[str, Any]]:
    argv = ["python3", "-B", gpu.PROOF, "--card"]
    done = sandbox.inside(built.tree, argv, step="the proof", over=over, check=False)
    results = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == int(any(one["state"] == "problem" for one in results.values()))
    return results


@pytest.fixture
def changed(built: Built, tmp_path: Path) -> Path:
    """A copy of what lies over the base, to spoil."""
    shutil.copytree(built.whole, tmp_path / "over", symlinks=True)
    return tmp_path / "over"


def test_the_layer_passes_its_proof_and_says_what_a_card_would_be_needed_for(built: Built) -> None:
    results = proof(built, built.whole)
    states = {name: one["state"] for name, one in results.items()}
    needs_a_card = {name for name, state in states.items() if state == "not run"}
    assert needs_a_card == {"cards are the spec's", "cards stay awake", "devices are there", "cuda starts"}
    assert {state for name, state in states.items() if name not in needs_a_card} == {"ok"}
    assert results["modules fit the libraries"]["said"] == "both are 550.163.01"
    assert built.kernel in results["modules exist"]["said"]
    assert results["modules are signed"]["said"] == "not signed, as the spec has it"


def test_the_layer_brings_modules_and_no_compiler(built: Built) -> None:
    done = run(["unsquashfs", "-quiet", "-ls", "-dest", "", built.layer], step="listing the layer")
    files = [line.lstrip("/") for line in done.stdout.splitlines()]
    assert f"usr/lib/modules/{built.kernel}/updates/builder/nvidia.ko" in files
    assert not [name for name in files if re.search(r"\.(xz|zst|[cho])$|/usr/src|/kernel/", name)]
    for name in ("gcc", "make", "dkms"):
        assert not (built.tree / "usr/bin" / name).exists()


def test_a_second_kernel_without_modules_is_found(built: Built, changed: Path) -> None:
    second = changed / "usr/lib/modules/6.99.0-other"
    second.mkdir()
    (second / "modules.builtin").touch()
    found = proof(built, changed)["modules exist"]
    assert (found["state"], found["said"]) == ("problem", "the kernel 6.99.0-other has no module nvidia")
    with pytest.raises(BuilderError, match=r"does not pass its proof, and is not used\n.*6\.99\.0-other"):
        gpu.require_proof(built.tree, changed)


def test_modules_of_another_kernel_are_found(built: Built, changed: Path, root: Path) -> None:
    (changed / "usr/lib/modules" / built.kernel).rename(changed / "usr/lib/modules/6.99.0-other")
    modules.depmod(root, "6.99.0-other", changed)
    found = proof(built, changed)["modules fit their kernel"]
    assert found["state"] == "problem"
    assert f"was made for {built.kernel}" in found["said"]


def gone(path: Path) -> None:
    """What lies below at this place is not there: a whiteout, as overlayfs has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, 0o600 | stat.S_IFCHR, 0)


def test_each_thing_that_is_broken_is_named(built: Built, changed: Path) -> None:
    """All at once, as none of them hides another."""
    for name in ("gsp_ga10x.bin", "gsp_tu10x.bin"):
        gone(changed / "usr/lib/firmware/nvidia/550.163.01" / name)
    gone(changed / "etc/modprobe.d/builder-nouveau.conf")
    # As Ubuntu's own unit has it; there our drop-in says otherwise.
    unit = changed / "etc/systemd/system/nvidia-persistenced.service.d/zz.conf"
    unit.write_text("[Service]\nExecStart=\nExecStart=/usr/bin/nvidia-persistenced --no-persistence-mode\n")
    (changed / "var/lib/dpkg").mkdir(parents=True)
    packages = (built.tree / "var/lib/dpkg/status").read_text()
    (changed / "var/lib/dpkg/status").write_text(packages.replace("Status: hold ok", "Status: install ok"))
    (changed / "usr/bin").mkdir()
    (changed / "usr/bin/nvidia-smi").write_text("#!/bin/sh\necho something else; exit 9\n")
    (changed / "usr/bin/nvidia-smi").chmod(0o755)
    found = {name: one["said"] for name, one in proof(built, changed).items() if one["state"] == "problem"}
    assert found == {
        "firmware is there": "there is no firmware of 550.163.01 in /usr/lib/firmware/nvidia",
        "nouveau is blocked": "/etc/modprobe.d/builder-nouveau.conf is missing",
        "persistenced is on": "nvidia-persistenced.service starts with --no-persistence-mode, "
        "which keeps no card awake",
        "kernel is held": f"linux-image-{built.kernel} is not held back from upgrades",
        "nvidia smi runs": "nvidia-smi exited 9: something else",
        "libraries resolve": "/usr/bin/nvidia-smi does not find its loader",
    }


def test_a_cuda_runtime_that_needs_what_is_not_there_is_found(built: Built, changed: Path, root: Path) -> None:
    """Made by the compiler of the throw-away root."""
    libraries = changed / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "empty.c").touch()
    for made, needs in (("libgone.so", ()), ("libcudart.so.12", ("-Wl,--no-as-needed", "-L.", "-lgone"))):
        compiler = ["x86_64-linux-gnu-gcc-14", "-shared", "-nostdlib", "-o", made, "empty.c", *needs]
        argv = sandbox.bwrap_argv(
            root, ["env", "-C", "/mnt/out", *compiler], {"out": libraries}, as_root=os.geteuid() == 0
        )
        run(argv, step=f"making {made}")
    (libraries / "libgone.so").unlink()
    facts = json.loads((changed / FACTS.lstrip("/")).read_text())
    (changed / FACTS.lstrip("/")).write_text(json.dumps({**facts, "install": "runtime"}))
    found = proof(built, changed)["libraries resolve"]
    assert found["said"] == "/usr/lib/x86_64-linux-gnu/libcudart.so.12 does not find libgone.so"


def test_libraries_of_another_version_or_unknown_to_the_linker_are_found(built: Built, changed: Path) -> None:
    library = changed / "usr/lib/x86_64-linux-gnu/libcuda.so.1"
    library.parent.mkdir(parents=True)
    library.symlink_to("libcuda.so.560.35.03")
    found = proof(built, changed)["modules fit the libraries"]
    assert found["state"] == "problem"
    assert found["said"].endswith("is 550.163.01, and the libraries are 560.35.03")
    gone(changed / "etc/ld.so.cache")
    found = proof(built, changed)["libcuda is found"]
    assert (found["state"], found["said"]) == ("problem", "ldconfig knows no libcuda.so.1")


def test_an_initramfs_that_would_load_nouveau_is_found(built: Built, changed: Path) -> None:
    (changed / "boot").mkdir()
    image = f"boot/initrd.img-{built.kernel}"
    (changed / image).write_bytes(cpio.archive([], 0))
    found = proof(built, changed)["nouveau is blocked"]
    assert (found["state"], found["said"]) == ("problem", f"/{image} lacks etc/modprobe.d/builder-nouveau.conf")


def test_facts_that_differ_from_what_is_there_are_found(built: Built, changed: Path) -> None:
    facts = json.loads((changed / FACTS.lstrip("/")).read_text())
    facts |= {"driver": "580", "modules": "proprietary", "signed": "mok", "install": "runtime"}
    (changed / FACTS.lstrip("/")).write_text(json.dumps(facts))
    results = proof(built, changed)
    assert {name for name, one in results.items() if one["state"] == "problem"} == {
        "modules fit the libraries",
        "modules are of the flavour",
        "modules are signed",
        "libraries resolve",
    }


def test_a_given_key_signs_them(built: Built, changed: Path, root: Path, tmp_path: Path) -> None:
    """The kernel's own program signs, and modinfo names the certificate."""
    key, certificate = tmp_path / "mok.key", tmp_path / "mok.pem"
    subject = ["-subj", "/CN=lab's modules", "-days", "30", "-keyout", str(key), "-out", str(certificate)]
    run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], step="making a key")
    modules.require_pair(root, modules.Key(key, certificate))
    modules.sign(
        root,
        built.kernel,
        changed / "usr/lib/modules" / built.kernel / modules.FOLDER,
        modules.Key(key, certificate),
    )
    facts = json.loads((changed / FACTS.lstrip("/")).read_text())
    (changed / FACTS.lstrip("/")).write_text(json.dumps({**facts, "signed": "mok"}))
    found = proof(built, changed)["modules are signed"]
    assert (found["state"], found["said"]) == ("ok", "signed by lab's modules")


def test_a_certificate_of_another_key_is_refused(root: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        subject = ["-subj", f"/CN={name}", "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / name)]
        run(["openssl", "req", "-new", "-x509", "-newkey", "ed25519", "-nodes", *subject], step="making a key")
    with pytest.raises(BuilderError, match=r"two is not the certificate of .*one\.key") as caught:
        modules.require_pair(root, modules.Key(tmp_path / "one.key", tmp_path / "two"))
    assert caught.value.code == Exit.SPEC
    (tmp_path / "two").write_text("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    with pytest.raises(BuilderError, match=r"two, which gpu\.mok names, cannot be read: .*certificate"):
        modules.require_pair(root, modules.Key(tmp_path / "one.key", tmp_path / "two"))


def test_a_patch_that_does_not_apply_is_named(root: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.patch"
    wrong.write_text(
        "--- a/nvidia/nv-pci.c\n+++ b/nvidia/nv-pci.c\n@@ -1,2 +1,2 @@\n no such line\n-nor this\n+x\n"
    )
    with pytest.raises(BuilderError, match="wrong content"):
        modules.patch(root, modules.source_in(root), {wrong: "0" * 64})
    digest = run(["sha256sum", wrong], step="hashing").stdout.split()[0]
    with pytest.raises(BuilderError, match=r"wrong\.patch does not apply to nvidia-current-open-550") as caught:
        modules.patch(root, modules.source_in(root), {wrong: digest})
    assert caught.value.code == Exit.SPEC


# A driver as NVIDIA's is for the build: its folder, its make variables; and its everyday failure, in one line.
MAKEFILE = """\
modules:
\t$(MAKE) -C /lib/modules/$(KERNEL_UNAME)/build M=$(CURDIR) modules
obj-m := $(addsuffix .o,$(NV_KERNEL_MODULES))
"""
CODE = """\
#include <linux/module.h>
#include <linux/pci.h>
int resize(struct pci_dev *dev);
int resize(struct pci_dev *dev) { return pci_resize_resource(dev, 1, 2); }
MODULE_LICENSE("GPL");
"""
MENDED = CODE.replace("2);", "2, 0);")


@pytest.fixture
def small(root: Path) -> Iterator[modules.Source]:
    """A driver of a few lines in the root, which takes seconds."""
    source = modules.Source("small-1.0", "1.0")
    folder = root / "usr/src" / source.name
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    for name in modules.MODULES:
        (folder / f"{name}.c").write_text(MENDED)
    yield source
    shutil.rmtree(folder)


def test_a_driver_that_does_not_compile_stops_the_build_with_the_compiler_s_first_error(
    built: Built, root: Path, small: modules.Source, tmp_path: Path
) -> None:
    """By the real compiler and kernel: what 550 does without the patch, which docs/gpu.md shows."""
    assert built.todo.cluster.gpu is not None
    (root / "usr/src" / small.name / "nvidia-uvm.c").write_text(CODE)
    with pytest.raises(BuilderError) as caught:
        modules.build(root, small, built.kernel, tmp_path / "built/x", gpu.works(built.todo.cluster.gpu))
    first = caught.value.message.splitlines()
    assert first[0] == f"small-1.0 does not compile for the kernel {built.kernel}; the first error:"
    assert re.search(r"nvidia-uvm\.c:4:\d+: error: too few arguments to function .pci_resize_resource.", first[1])
    assert "gpu.patches" in caught.value.hint
    assert "Ubuntu" in caught.value.hint
    assert not (tmp_path / "built/x").exists()


def test_a_source_laid_out_as_nvidia_s_own_package_compiles(
    built: Built, root: Path, small: modules.Source, tmp_path: Path
) -> None:
    """There the parts for the kernel are a folder below, and the top's Makefile descends into it."""
    top = root / "usr/src" / small.name
    (top / "kernel-open").mkdir()
    for file in ("Makefile", *(f"{name}.c" for name in modules.MODULES)):
        (top / file).rename(top / "kernel-open" / file)
    (top / "Makefile").write_text("modules:\n\t$(MAKE) -C kernel-open modules\n")
    modules.build(root, small, built.kernel, tmp_path / "built/x", "")
    assert {path.name for path in (tmp_path / "built/x").iterdir()} == {f"{name}.ko" for name in modules.MODULES}
    (top / "Makefile").write_text("modules:\n")
    with pytest.raises(BuilderError, match=r"without an error, and made 0 modules nvidia\.ko"):
        modules.build(root, small, built.kernel, tmp_path / "other/x", "")


def test_what_compiles_is_the_same_bytes_again(
    built: Built, root: Path, small: modules.Source, tmp_path: Path
) -> None:
    digests = []
    for name in ("one", "two"):
        modules.build(root, small, built.kernel, tmp_path / name / "x", "")
        digests.append({path.name: sha256_of(path) for path in (tmp_path / name / "x").iterdir()})
    assert digests[0] == digests[1]
    assert set(digests[0]) == {f"{name}.ko" for name in modules.MODULES}
