"""The gpu layer's pure parts: packages, the plan's layers, files of the spec, and what is said of failures."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

import pytest

from builder import lock, plan, preflight, resources
from builder.errors import BuilderError, SpecError
from builder.gpu import choice_of, content, sources
from builder.gpu import packages as names
from builder.layers import base, modules
from builder.lock import Lock, LockedModel
from builder.sources import apt, pgp
from builder.sources.apt import Package
from builder.sources.mirror import Mirror
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings
from tests.unit.test_gpu import NOBLE, spec

EXAMPLES = Path(__file__).parents[2] / "examples"
PATCH = EXAMPLES / "patches/nvidia-550-pci-resize.patch"
GIB = 1 << 30


def cluster(gpu: str, distribution: str = "", base: Path = EXAMPLES) -> Cluster:
    return loads(spec(gpu, distribution), base=base)


def package(name: str, digit: str = "0") -> Package:
    return Package(name, "1", "amd64", "main", f"pool/{name}.deb", 1, digit * 64)


def locked(of: Cluster, *, models: int = 0) -> Lock:
    weights = (LockedModel("x.gguf", "a" * 64, models),) if models else ()
    return Lock(lock.asks_of(of), 0, (package("linux-image-6.12.118-amd64"),), weights, gpu=(package("gcc-14"),))


def test_debian_compiles_and_ubuntu_takes_what_it_signed() -> None:
    debian, ubuntu = cluster("{model: rtx-3090}"), cluster("{model: rtx-5070}", NOBLE)
    assert lock.asks_of(debian)["gpu"] == {"compiles": "nvidia-open-kernel-dkms", "archive": None}
    assert lock.asks_of(ubuntu)["gpu"] == {"compiles": None, "archive": None}
    assert {"libcuda1", "nvidia-smi", "nvidia-persistenced", "firmware-nvidia-gsp"} < set(
        lock.asks_of(debian)["packages"]
    )
    assert not {"dkms", "nvidia-open-kernel-dkms"} & set(lock.asks_of(debian)["packages"])
    asked = set(lock.asks_of(ubuntu)["packages"])
    assert {"linux-modules-nvidia-580-open-generic", "nvidia-compute-utils-580", "nvidia-utils-580"} < asked
    # The metapackage for headless machines brings the modules' source.
    assert not [name for name in asked if "headless" in name or "source" in name]
    assert lock.target_of(debian).components == ("main", "non-free-firmware", "contrib", "non-free")


@pytest.mark.parametrize(("install", "named"), [("runtime", "libcudart12"), ("toolkit", "nvidia-cuda-toolkit")])
def test_cuda_is_installed_only_if_the_spec_asks(install: str, named: str) -> None:
    asked = lock.asks_of(cluster(f"{{model: rtx-3090, install: {install}}}"))["packages"]
    assert named in asked
    assert not [name for name in lock.asks_of(cluster("{model: rtx-3090}"))["packages"] if "cudart" in name]
    assert (content.facts(cluster(f"{{model: rtx-3090, install: {install}}}")) or {})["install"] == install


def test_a_kernel_that_ubuntu_has_no_modules_for_yet_is_named_by_the_lock() -> None:
    """As in noble-updates in August 2026: the kernel was two steps ahead of its modules for days."""
    choice = choice_of(
        cluster("{model: rtx-5070}", 'distribution: {name: ubuntu, release: "24.04", kernel: hwe}\n')
    )
    assert choice is not None
    modules_of = "linux-modules-nvidia-580-open-{}".format
    node = ["linux-image-7.0.0-28-generic", modules_of("7.0.0-28-generic"), modules_of("generic-hwe-24.04")]
    sources.require_prebuilt(choice, node)
    with pytest.raises(BuilderError, match=r"7\.0\.0-30-generic and not .*it has .*-7\.0\.0-28-generic") as caught:
        sources.require_prebuilt(choice, [*node, "linux-image-7.0.0-30-generic", "linux-image-generic-hwe-24.04"])
    assert "gpu.dkms" in caught.value.hint


def test_ubuntu_s_cuda_is_in_multiverse_which_only_it_needs() -> None:
    without, with_cuda = (cluster(f"{{model: rtx-3090{more}}}", NOBLE) for more in ("", ", install: runtime"))
    assert lock.target_of(without).components == ("main", "restricted", "universe")
    assert lock.target_of(with_cuda).components == ("main", "restricted", "universe", "multiverse")


def test_ubuntu_s_modules_are_compiled_only_if_the_spec_asks() -> None:
    wanted = cluster("{model: rtx-5070, dkms: true}", NOBLE)
    asks, choice = lock.asks_of(wanted), choice_of(wanted)
    assert asks["gpu"] == {"compiles": "nvidia-dkms-580-open", "archive": None}
    assert not [name for name in asks["packages"] if "linux-modules-nvidia" in name or "dkms" in name]
    assert choice is not None
    compiled = names.to_compile(choice, ["linux-image-6.8.0-90-generic", "linux-image-generic"])
    assert {"linux-headers-6.8.0-90-generic", "nvidia-dkms-580-open"} < set(compiled)
    assert content.signed_by(wanted) == "nobody"


def test_ubuntu_s_modules_are_those_of_the_kernel_s_flavour() -> None:
    hwe = cluster("{model: rtx-5070}", 'distribution: {name: ubuntu, release: "24.04", kernel: hwe}\n')
    assert "linux-modules-nvidia-580-open-generic-hwe-24.04" in lock.asks_of(hwe)["packages"]
    with pytest.raises(SpecError, match="signed modules are for its generic and hwe kernels"):
        cluster("{model: rtx-5070}", 'distribution: {name: ubuntu, release: "24.04", kernel: cloud}\n')


def test_a_gpu_changes_what_is_asked_of_the_archive_and_none_changes_nothing() -> None:
    without = loads(spec("{model: rtx-3090}").partition("gpu:")[0])
    assert lock.asks_of(without)["gpu"] is None
    assert lock.target_of(without).components == ("main", "non-free-firmware")


def test_the_root_for_compiling_has_the_headers_of_every_kernel() -> None:
    choice = choice_of(cluster("{model: rtx-3090}"))
    assert choice is not None
    node = ["linux-image-6.12.118+deb13-amd64", "linux-image-amd64", "linux-image-6.1.0-50-cloud-amd64", "bash"]
    asked = names.to_compile(choice, node)
    assert {"linux-headers-6.12.118+deb13-amd64", "linux-headers-6.1.0-50-cloud-amd64"} < set(asked)
    assert "linux-headers-amd64" not in asked
    assert "nvidia-open-kernel-dkms" in asked


def test_kernel_and_driver_are_held_and_nothing_else() -> None:
    node = [
        *(
            "linux-image-6.12.118+deb13-amd64",
            "linux-image-amd64",
            "libcuda1",
            "nvidia-smi",
            "firmware-nvidia-gsp",
        ),
        *("linux-modules-nvidia-580-open-6.8.0-50-generic", "linux-objects-nvidia-580-6.8.0-50-generic"),
        *("bash", "linux-base", "linux-sysctl-defaults", "libcap2", "libc6"),
    ]
    assert set(node) - set(names.held(node)) == {"bash", "linux-base", "linux-sysctl-defaults", "libcap2", "libc6"}


def test_held_packages_are_a_hook_of_the_base_s_command_line() -> None:
    plain = base.argv("trixie", ["a"], Path("/w"), mode="root")
    holding = base.argv("trixie", ["a"], Path("/w"), mode="root", holds=True)
    assert [word for word in holding if word not in plain] == [
        "--customize-hook=upload /w/held /tmp/held",
        '--customize-hook=chroot "$1" xargs -a /tmp/held apt-mark hold >/dev/null && rm "$1/tmp/held"',
    ]


def test_the_daemon_keeps_cards_awake_on_both_distributions() -> None:
    """Ubuntu's own unit starts with --no-persistence-mode and stops when nothing wants it."""
    for wanted in (cluster("{model: rtx-3090}"), cluster("{model: rtx-5070}", NOBLE)):
        made = {file.path: file for file in content.files(wanted)}
        folder = "/etc/systemd/system"
        link = made[f"{folder}/multi-user.target.wants/nvidia-persistenced.service"].link
        assert link == "/usr/lib/systemd/system/nvidia-persistenced.service"
        text = made[f"{folder}/nvidia-persistenced.service.d/builder.conf"].content.decode()
        on_ubuntu = wanted.distribution.name == "ubuntu"
        assert ("StopWhenUnneeded=no\n" in text) == on_ubuntu
        assert (
            "ExecStart=\nExecStart=/usr/bin/nvidia-persistenced --user nvidia-persistenced" in text
        ) == on_ubuntu
        assert "ExecCondition=" in text and "no-persistence" not in text


def test_the_layer_stands_between_base_and_engine() -> None:
    wanted = cluster("{model: rtx-3090}")
    todo = plan.make(wanted, locked(wanted))
    assert [(layer.name, layer.file) for layer in todo.layers] == [
        ("base", "node.squashfs"),
        ("gpu", "node.gpu.squashfs"),
        ("site", "node.gpu.site.squashfs"),
    ]
    assert "/etc/modprobe.d/builder-nouveau.conf" in {file.path for file in todo.base_files}


@pytest.mark.parametrize(
    "changed",
    [
        "{model: rtx-3080}",
        f"{{model: rtx-3090, patches: [{{path: patches/{PATCH.name}, sha256: "
        f"{hashlib.sha256(PATCH.read_bytes()).hexdigest()}}}]}}",
        "{model: rtx-3090, modules: proprietary}",
        "{model: rtx-3090, count: 2}",
    ],
)
def test_what_decides_the_layer_names_it(changed: str) -> None:
    before, after = cluster("{model: rtx-3090}"), cluster(changed)
    digests = [plan.make(one, locked(one)).layers for one in (before, after)]
    assert digests[0][1].digest != digests[1][1].digest
    assert digests[0][0].digest == digests[1][0].digest  # the base knows packages, not cards


def test_another_packages_of_the_root_or_another_base_make_another_layer() -> None:
    wanted = cluster("{model: rtx-3090}")
    pins = locked(wanted)
    layers = [
        plan.make(wanted, one).layers[1].digest
        for one in (
            pins,
            Lock(pins.asks, 0, pins.packages, (), gpu=(package("gcc-14", "1"),)),
            Lock(pins.asks, 0, (package("linux-image-6.12.119-amd64", "1"),), (), gpu=pins.gpu),
        )
    ]
    assert len(set(layers)) == 3


def test_the_key_is_not_in_the_plan_and_the_certificate_is(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    certificate = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    (tmp_path / "c").write_text(certificate.format("b25l"))
    asked = "{model: rtx-3090, secure_boot: true, mok: {key: k, certificate: c}}"
    one = cluster(asked, base=tmp_path)
    made = plan.make(one, locked(one))
    assert "c2VjcmV0" not in str(made)
    assert "secret" not in repr(one)
    (tmp_path / "c").write_text(certificate.format("dHdv"))
    two = cluster(asked, base=tmp_path)
    assert plan.make(two, locked(two)).layers[1].digest != made.layers[1].digest
    (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\nb3RoZXI=\n-----END PRIVATE KEY-----\n")
    three = cluster(asked, base=tmp_path)
    assert plan.make(three, locked(three)).layers[1].digest == plan.make(two, locked(two)).layers[1].digest


@pytest.mark.parametrize(
    ("key", "certificate", "path", "said"),
    [
        (None, "-----BEGIN CERTIFICATE-----\n", "gpu.mok.key", "does not exist"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\n", "gpu.mok.key", "passphrase"),
        ("hello", "-----BEGIN CERTIFICATE-----\n", "gpu.mok.key", "not a private key"),
        ("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n", "gpu.mok.certificate", "PRIVATE key"),
        ("-----BEGIN PRIVATE KEY-----\n", "\x30\x82", "gpu.mok.certificate", "openssl x509 -inform der"),
        ("-----BEGIN PRIVATE KEY-----\n", "", "gpu.mok.certificate", "empty"),
    ],
)
def test_a_key_that_cannot_sign_is_told_before_the_build(
    tmp_path: Path, key: str | None, certificate: str, path: str, said: str
) -> None:
    if key is not None:
        (tmp_path / "k").write_text(key)
    (tmp_path / "c").write_text(certificate)
    with pytest.raises(SpecError) as caught:
        cluster("{model: rtx-3090, secure_boot: true, mok: {key: k, certificate: c}}", base=tmp_path)
    (mistake,) = caught.value.mistakes
    assert mistake.path == path
    assert said in f"{mistake.message} {mistake.hint}"


def test_a_patch_is_held_to_its_digest() -> None:
    with pytest.raises(SpecError) as caught:
        cluster(f"{{model: rtx-3090, patches: [{{path: patches/{PATCH.name}, sha256: {'e' * 64}}}]}}")
    (mistake,) = caught.value.mistakes
    assert mistake.path == "gpu.patches[0].sha256"
    assert hashlib.sha256(PATCH.read_bytes()).hexdigest() in mistake.hint
    with pytest.raises(SpecError, match="does not exist"):
        cluster(f"{{model: rtx-3090, patches: [{{path: patches/none, sha256: {'e' * 64}}}]}}")


@pytest.mark.parametrize("key", ["mok: {key: k, certificate: c}", f"patches: [{{path: p, sha256: {'e' * 64}}}]"])
def test_what_is_for_compiled_modules_is_refused_where_none_are(tmp_path: Path, key: str) -> None:
    (tmp_path / "k").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "c").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "p").write_text("x")
    with pytest.raises(SpecError, match="modules that are compiled here, and ubuntu has signed ones"):
        cluster(f"{{model: rtx-5070, {key}}}", NOBLE, base=tmp_path)


LOG = """\
make[1]: Entering directory '/usr/src/linux-headers-6.12.118+deb13-amd64'
  CC [M]  /mnt/source/nvidia/nv-pci.o
/mnt/source/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':
/mnt/source/nvidia/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'
  237 |     r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);
      |         ^~~~~~~~~~~~~~~~~~~
In file included from /mnt/source/common/inc/nv-pci.h:29,
/mnt/source/nvidia/other.c:1:1: error: a later one
make[3]: *** [nvidia/nv-pci.o] Error 1
"""


def test_the_compiler_s_first_error_is_quoted_with_module_kernel_and_what_helps() -> None:
    source = modules.Source("nvidia-current-open-550.163.01", "550.163.01")
    error = modules.failure(source, "6.12.118+deb13-amd64", LOG, "patch it")
    lines = error.message.splitlines()
    assert lines[0] == (
        "nvidia-current-open-550.163.01 does not compile for the kernel 6.12.118+deb13-amd64; the first error:"
    )
    assert lines[1].endswith("237:9: error: too few arguments to function 'pci_resize_resource'")
    assert error.hint == "patch it"


def test_a_failure_without_an_error_of_the_compiler_shows_the_end() -> None:
    error = modules.failure(modules.Source("x-1", "1"), "6", "\n".join(f"line {i}" for i in range(30)), "")
    assert "line 20" in error.message


@pytest.mark.parametrize(("size", "warned"), [(40 * GIB, False), (49 * GIB, True)])
def test_weights_that_do_not_fit_all_cards_are_warned_of_with_the_numbers(size: int, warned: bool) -> None:
    wanted = cluster("{model: rtx-3090}")
    found = preflight.check(wanted, locked(wanted, models=size))
    assert bool(found.warnings) == warned
    if warned:
        assert "49.0 GiB of VRAM are needed" in found.warnings[0]
        assert "on 2 x 1 rtx-3090), and there are 48.0 GiB" in found.warnings[0]
    assert any(str(row).startswith("VRAM") for row in found.rows)


def test_a_key_s_fingerprint_is_read_from_its_file(tmp_path: Path) -> None:
    """Ubuntu's key is in keys/, and its README says the fingerprint that gpg shows."""
    shutil.copy(resources.root() / "keys/ubuntu-cdimage.gpg", tmp_path / "k")
    whole = (tmp_path / "k").read_bytes()
    assert pgp.fingerprints(whole) == ("843938DF228D22F7B3742BC0D94AA3F0EFE21092",)
    armoured = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n" + base64.encodebytes(whole)
    armoured += b"=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    assert pgp.fingerprints(armoured) == pgp.fingerprints(whole)
    for damaged in (b"", b"hello", whole[:-1], armoured[:90]):
        with pytest.raises(ValueError, match=r"."):
            pgp.fingerprints(damaged)


REPOSITORY = (
    "{model: rtx-5070, source: nvidia, "
    "repository: {url: 'http://nvidia.example/debian13', key: k, fingerprint: '%s'}}"
)


def test_nvidia_s_archive_is_held_to_the_key_that_the_spec_names(tmp_path: Path) -> None:
    shutil.copy(resources.root() / "keys/ubuntu-cdimage.gpg", tmp_path / "k")
    wanted = cluster(REPOSITORY % "8439 38DF 228D 22F7 B374 2BC0 D94A A3F0 EFE2 1092", base=tmp_path)
    choice = choice_of(wanted)
    assert choice is not None
    assert (choice.branch.name, choice.modules.source) == ("615", "nvidia-kernel-open-dkms")
    # Their packages depend on Debian's contrib; firmware comes by name, as what would bring it is not on the node.
    assert {"firmware-nvidia-gsp", "nvidia-persistenced"} < set(lock.asks_of(wanted)["packages"])
    assert "contrib" in lock.target_of(wanted).components
    # Their source has parts in C++, and Debian's has not.
    assert "g++" in sources.to_compile(choice, ["linux-image-6.12.118-amd64"])
    debian = choice_of(cluster("{model: rtx-3090}"))
    assert debian is not None and "g++" not in sources.to_compile(debian, ["linux-image-6.12.118-amd64"])
    target = lock.target_of(wanted)
    where = sources.with_archive(Mirror({"main": "http://a.example/debian"}, "a test"), wanted)
    assert "deb [signed-by=/r/nvidia.gpg] http://nvidia.example/debian13 ./\n" in apt.sources_list(
        target, where, Path("/r")
    )
    in_containers = cluster(
        REPOSITORY % pgp.fingerprints((tmp_path / "k").read_bytes()), "runtime: docker\n", tmp_path
    )
    assert any("no nvidia-container-toolkit" in line for line in warnings(in_containers))
    assert not any("no nvidia-container-toolkit" in line for line in warnings(wanted))
    with pytest.raises(SpecError) as caught:
        cluster(REPOSITORY % ("AB" * 20), base=tmp_path)
    (mistake,) = caught.value.mistakes
    assert mistake.path == "gpu.repository.fingerprint"
    assert "843938DF228D22F7B3742BC0D94AA3F0EFE21092" in mistake.hint
