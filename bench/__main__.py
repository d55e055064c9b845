"""``make bench``: each figure as a ratio within one run, with the limit that the project set itself.

Nothing here fails a build: machines are noisy. Run it on a quiet one and read the ratios.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from bench.figure import Figure, seconds
from bench.netboot import fleet, throughput
from bench.netinstall import network
from bench.remaster import remaster
from builder import build, lock, plan, resolve
from builder.cache import Cache, default_root
from builder.console import say
from builder.layers import squashfs
from builder.run import run
from builder.spec.load import load, loads
from builder.verify.boottest import boot_test
from builder.verify.spec import boot_test_of

ROOT = Path(__file__).parent.parent


def planning(_folder: Path) -> Iterator[Figure]:
    """A spec of 1,000 nodes, read and planned."""
    nodes = "".join(
        f"  - {{name: n{i}, match: {{serial: S{i}}}, address: 10.0.{i // 250}.{i % 250 + 1}, interface: eth0}}\n"
        for i in range(1, 1001)
    )
    text = f"name: big\nnetwork: {{subnet: 10.0.0.0/16}}\nnodes:\n{nodes}"
    parsed: list[plan.Plan] = []
    reading = seconds(lambda: loads(text, source="bench", base=ROOT))
    cluster = loads(text, source="bench", base=ROOT)
    making = seconds(lambda: parsed.append(plan.make(cluster, None)))
    yield Figure("plan of 1,000 nodes", reading + making, "reading its YAML", reading, "1 s", 1.0)


def warm(folder: Path) -> Iterator[Figure]:
    """A rebuild after a one-line change to the firewall, and to a node."""
    shutil.copytree(ROOT / "examples", folder / "warm")
    spec, cache = folder / "warm/quickstart.yaml", Cache(default_root())
    made = build.build_iso(spec, folder / "out", cache)
    copying = seconds(lambda: shutil.copyfile(made.path, folder / "copy"))
    for what, old, new in (("firewall", "8080", "8081"), ("node", "10.77.0.12", "10.77.0.13")):
        spec.write_text(spec.read_text().replace(old, new))
        took = seconds(lambda: build.build_iso(spec, folder / "out", cache))
        yield Figure(
            f"warm rebuild, {what} changed", took, "cp of the ISO", copying, "10 s + 2 cp", 10 + 2 * copying
        )


def cold(folder: Path) -> Iterator[Figure]:
    """The quickstart from nothing, against the bare tools run by hand with the same packages."""
    shutil.copytree(ROOT / "examples", folder / "cold")
    spec = folder / "cold/quickstart.yaml"
    lock.path_for(spec).unlink(missing_ok=True)
    ours = seconds(lambda: build.build_iso(spec, folder / "cold-out", Cache(folder / "cold-cache")))
    pins, cluster = lock.load(lock.path_for(spec)), load(spec)
    uris, target = resolve.mirror_of(cluster).uris, lock.target_of(cluster)
    components = " ".join(target.components)
    sources = [f"deb {uris[label]} {suite} {components}" for label, suite in target.suites if label in uris]
    names = ",".join(package.name for package in pins.packages)
    tar, image = folder / "hand.tar", folder / "hand.squashfs"

    def by_hand() -> None:
        run(["mmdebstrap", "--variant=apt", f"--include={names}", target.codename, tar, *sources], step="by hand")
        run(["sh", "-c", 'exec "$@" <"$0"', tar, *squashfs.from_tar(image)], step="by hand")
        run(
            ["xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-o", folder / "hand.iso", image],
            step="by hand",
        )

    reference = seconds(by_hand)
    yield Figure("cold quickstart build", ours, "bare tools by hand", reference, "1.5 times", 1.5 * reference)


def install(folder: Path) -> Iterator[Figure]:
    """The installer in a virtual machine, against unsquashfs and grub-install within the same run."""
    shutil.copytree(ROOT / "examples", folder / "install")
    spec = folder / "install/quickstart.yaml"
    made = build.build_iso(spec, folder / "install-out", Cache(default_root()))
    cluster = load(spec)
    request = boot_test_of(
        cluster,
        lock.load(lock.path_for(spec)),
        cluster.nodes[0],
        made.path,
        folder / "report",
        firmware="bios",
        medium="cdrom",
    )
    report = boot_test(request, say)
    phases = {timing.phase: timing.seconds for timing in report.timings}
    say(json.dumps(phases, indent=1))
    reference = phases["install unpack"] + phases["install bootloader"]
    total = sum(took for name, took in phases.items() if name.startswith("install ") and name != "install start")
    yield Figure("install in the VM", total, "unsquashfs + GRUB in it", reference, "twice", 2 * reference)


BENCHES = {
    bench.__name__: bench for bench in (planning, warm, cold, install, remaster, fleet, throughput, network)
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHES)))
def main(names: tuple[str, ...]) -> None:
    """Measure NAMES, or everything; each figure is printed as it is known."""
    with tempfile.TemporaryDirectory(prefix="builder-bench-", dir="/var/tmp") as folder:
        for name in names or BENCHES:
            for figure in BENCHES[name](Path(folder)):
                click.echo(figure.row())
                sys.stdout.flush()


main()
