"""The GPU table: every combination that cannot work is named, with one that does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder.errors import SpecError
from builder.gpu import choice_of, stack_of, table
from builder.gpu.choose import Choice, Wish, can_drive, choose
from builder.gpu.table import version
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings

SPEC = """\
name: lab
network: {subnet: 10.77.0.0/24}
nodes:
  - {name: node1, match: {mac: "52:54:00:77:00:01"}}
  - {name: node2, match: {mac: "52:54:00:77:00:02"}}
"""
NOBLE = 'distribution: {name: ubuntu, release: "24.04"}\n'


def spec(gpu: str, distribution: str = "") -> str:
    return f"{SPEC}{distribution}gpu: {gpu}\n"


def cluster(gpu: str, distribution: str = "") -> Cluster:
    return loads(spec(gpu, distribution))


def mistakes(gpu: str, distribution: str = "") -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        cluster(gpu, distribution)
    return {mistake.path: f"{mistake.message} | {mistake.hint}" for mistake in caught.value.mistakes}


def test_an_rtx_5070_on_ubuntu_gets_the_open_modules_that_ubuntu_signed() -> None:
    chosen = choice_of(cluster("{model: rtx-5070}", NOBLE))
    assert chosen is not None
    assert (chosen.branch.name, chosen.flavour, chosen.compiled, chosen.cuda) == ("580", "open", False, "13")
    assert chosen.modules.prebuilt == "linux-modules-nvidia-580-open-{flavour}"


def test_the_stack_is_what_engines_read() -> None:
    stack = stack_of(cluster("{model: rtx-5070, count: 2}", NOBLE))
    assert stack is not None
    assert (stack.driver, stack.cuda, stack.vram_mib, stack.compute) == ("580", "cuda13", 24576, "12.0")
    older = stack_of(cluster("{model: rtx-3090}"))
    assert older is not None
    assert (older.driver, older.cuda, older.modules) == ("550", "cuda12", "open")
    none = stack_of(cluster('{model: rtx-3090, cuda: "none"}'))
    assert none is not None
    assert none.cuda is None


def test_no_gpu_no_stack() -> None:
    assert stack_of(loads(SPEC)) is None


def test_names_of_cards_are_read_as_people_write_them() -> None:
    assert cluster('{model: "RTX 5070"}', NOBLE).gpu == cluster("{model: rtx-5070}", NOBLE).gpu


@pytest.mark.parametrize(
    ("gpu", "distribution", "path", "said"),
    [
        ("{model: rtx-5007}", "", "gpu.model", "or rtx-5070?"),
        ("{model: radeon}", "", "gpu.model", "known: rtx-5090"),
        ("{model: rtx-5060-ti}", "", "gpu.model", "did you mean rtx-5060-ti-16g or rtx-5060-ti-8g"),
        ("{model: rtx-3060-laptop}", "", "gpu.model", "did you mean rtx-3060 or"),
        # Debian 13's own 550 does not know an RTX 5070, and there are two ways out.
        ("{model: rtx-5070}", "", "gpu.model", "ubuntu noble (driver 580)"),
        ("{model: rtx-5070}", "", "gpu.model", "the archive for debian trixie has 550, 535"),
        ('{model: rtx-5070, driver: "550"}', "", "gpu.driver", "needs driver 570.123.07 or later"),
        ('{model: rtx-3090, driver: "580"}', "", "gpu.driver", "it has 550, 535 | take 550"),
        ('{model: rtx-5070, modules: "proprietary"}', NOBLE, "gpu.modules", "write open"),
        ('{model: rtx-3090, cuda: "13"}', "", "gpu.cuda", "needs driver 580.65.06 or later"),
        (
            '{model: rtx-3090, cuda: "12.8"}',
            "",
            "gpu.cuda",
            "take cuda 12.4; what works: debian trixie, source nvidia",
        ),
        ('{model: gtx-1080, cuda: "12.9"}', "", "gpu.cuda", "what works: ubuntu noble (driver 580)"),
        ('{model: rtx-5070, cuda: "12.4"}', NOBLE, "gpu.cuda", "take CUDA 12.8 or later"),
        (
            '{model: rtx-5070, cuda: "13.1"}',
            NOBLE,
            "gpu.cuda",
            "needs driver 590.44.01 or later, and 580 is 580.173.02",
        ),
        ('{model: gtx-1080, cuda: "13"}', NOBLE, "gpu.cuda", "take CUDA 12.9 or earlier"),
        ('{model: rtx-3090, cuda: "17"}', "", "gpu.cuda", "is not known"),
        ("{model: rtx-5070, install: runtime}", NOBLE, "gpu.install", "take CUDA 12.8"),
        ('{model: rtx-3090, install: runtime, cuda: "12.1"}', "", "gpu.install", "has CUDA 12.4"),
        ('{model: rtx-3090, install: runtime, cuda: "none"}', "", "gpu.install", "cuda is none"),
        ("{model: rtx-3090, secure_boot: true}", "", "gpu.secure_boot", "give gpu.mok"),
        ("{model: rtx-3090, source: nvidia}", "", "gpu.source", "needs gpu.repository"),
        ('{model: rtx-3090, driver: "550.163.01"}', "", "gpu.driver", 'write "550"'),
        ("{model: rtx-3090, count: 0}", "", "gpu.count", "1 to 16"),
        ("{model: rtx-3090, vendor: amd}", "", "gpu.vendor", "must be nvidia"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(gpu: str, distribution: str, path: str, said: str) -> None:
    found = mistakes(gpu, distribution)
    assert list(found) == [path]
    assert said in found[path]


def test_an_unknown_release_is_told_once() -> None:
    assert list(mistakes("{model: rtx-3090}", 'distribution: {release: "12"}\n')) == ["distribution.release"]


def test_a_value_that_cannot_be_read_hides_what_only_follows_from_it() -> None:
    assert list(mistakes('{model: rtx-3090, driver: "new", cuda: "13"}')) == ["gpu.driver"]


def test_pascal_gets_proprietary_modules_and_no_branch_after_580() -> None:
    found = choose(Wish("gtx-1080", "ubuntu", "noble"), table())
    assert isinstance(found, Choice)
    assert (found.flavour, found.cuda) == ("proprietary", "12")


def test_nvidia_s_archive_for_debian_13_has_nothing_for_cards_before_turing() -> None:
    """It begins with 590, which drives none of them."""
    found = choose(Wish("gtx-1080", "debian", "trixie", "nvidia"), table())
    assert not isinstance(found, Choice)
    assert "up to 580, and NVIDIA's archive for debian trixie has 590" in found[0].message
    assert "debian trixie (driver 550, 535); ubuntu noble (driver 580)" in found[0].hint


def test_a_branch_after_a_card_s_last_does_not_drive_it() -> None:
    """Whatever modules it has."""
    card, found = table().models["gtx-1080"], table().archive("ubuntu", "noble", "archive")
    assert found is not None
    last = found.branches["580"]
    assert can_drive(card, last)
    assert not can_drive(card, replace(last, name="590", version="590.48.01"))


def test_every_card_has_a_driver_somewhere_and_no_choice_breaks_the_table() -> None:
    tried = 0
    for model in table().models.values():
        chosen = [
            found
            for archive in table().archives
            if isinstance(
                found := choose(Wish(model.key, archive.distribution, archive.release, archive.source), table()),
                Choice,
            )
        ]
        assert chosen, model.key
        for found in chosen:
            tried += 1
            assert found.flavour in model.modules
            assert version(found.branch.version) >= version(model.driver)
            if found.cuda:
                assert version(found.branch.version) >= version(table().extras[found.cuda].driver)
    assert tried > len(table().models)


def test_blackwell_never_gets_proprietary_modules() -> None:
    assert {model.modules for model in table().models.values() if model.architecture == "blackwell"} == {("open",)}


def test_the_table_s_text_is_versions_and_not_numbers() -> None:
    """An unquoted 13.0 would be the float 13.0, and 12.10 would be 12.1."""
    for text in (*table().cuda, *table().cuda.values(), *table().extras):
        assert isinstance(text, str)
    for model in table().models.values():
        assert isinstance(model.compute, str)
        assert isinstance(model.driver, str)
    assert yaml.safe_load("a: 580.10")["a"] == 580.1  # why it matters


def test_unsigned_modules_are_warned_of() -> None:
    assert any("Secure Boot off" in line for line in warnings(cluster("{model: rtx-3090}")))
    assert not any("Secure Boot" in line for line in warnings(cluster("{model: rtx-5070}", NOBLE)))


def test_the_documents_name_every_card() -> None:
    text = (Path(__file__).parents[2] / "docs/gpu.md").read_text()
    assert [key for key in table().models if f"`{key}`" not in text] == []
