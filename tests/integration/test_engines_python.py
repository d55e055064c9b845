"""Ray and Dask for real: the layer as it is built, its programs as two nodes on a wire, and builder-join.

What a virtual machine adds (systemd's sandbox, the installation, power cuts) is in tests/boot/test_engines.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest

from builder import engines, inputs, nodefacts, plan, resolve, sandbox
from builder.cache import Cache, default_root
from builder.engines.trial import Trial
from builder.layers import engine
from builder.plan import Plan
from builder.run import run, start
from builder.spec.load import load
from tests import nodetools
from tests.integration.nodelab import Node, eventually, joining, make_root

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
# What systemd does with Restart=always.
ALWAYS = 'while :; do "$@"; sleep 1; done'


JOINED = "builder-joined 2/2"
RAY_GIVES_UP = 32  # seconds, a little more than `ray start` waits for its raylet
RAYLET = "/raylet/raylet"
AGENT = ("/dashboard/agent.py", "ray::DashboardAgent")  # its command line, and what it calls itself once it runs
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"
# Which programs run where, in the order in which they are started; the first is what all depend on.
ROLES: dict[str, list[tuple[int, str]]] = {
    "dask": [(0, "scheduler"), (0, "worker"), (1, "worker")],
    "ray": [(0, "node"), (1, "node")],
}


@dataclass(frozen=True)
class Pair:
    """Two nodes with an engine: ``tree`` holds the engine's layer, ``state`` what each node keeps."""

    plan: Plan
    tree: Path
    usr: Path
    nodes: tuple[Node, Node]
    state: Path

    @property
    def name(self) -> str:
        return engines.of(self.plan.cluster).name

    @property
    def trial(self) -> Trial:
        found = engines.of(self.plan.cluster).trial(self.plan.cluster)
        assert found is not None
        return found

    def inside(self, node: Node, *argv: str) -> list[str | Path]:
        """A command line of a node, in the engine's root, as the units have it."""
        kind = engines.of(self.plan.cluster)
        part = kind.part(self.plan.cluster)
        assert part is not None
        state = self.state / node.name
        state.mkdir(exist_ok=True)
        return node.argv(
            *("bwrap", "--die-with-parent", "--unshare-uts", "--hostname", node.name, "--unshare-pid"),
            *(
                "--bind",
                self.tree / part.prefix.lstrip("/"),
                "/",
                "--dev",
                "/dev",
                "--bind",
                "/dev/shm",
                "/dev/shm",
            ),
            *("--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"),
            *("--ro-bind", node.root / "etc/builder", "/etc/builder"),
            *("--ro-bind-try", node.root / "etc/builder/hosts", "/etc/hosts"),
            *("--ro-bind", self.usr / "lib/builder", "/usr/lib/builder"),
            *("--bind", state, f"/var/lib/{self.name}", "--clearenv", "--setenv", "HOME", f"/var/lib/{self.name}"),
            *("--setenv", "PATH", "/usr/bin:/bin", "--setenv", "RAY_gcs_rpc_server_reconnect_timeout_s", "15"),
            *("--", "/usr/local/bin/python", *argv),
        )

    def serve(self, stack: ExitStack, number: int, role: str) -> Popen[bytes]:
        """Run one of the engine's programs on a node until :func:`end`, and again whenever it ends before."""
        node = self.nodes[number]
        log = stack.enter_context((self.state / f"{node.name}-{role}.log").open("ab"))
        program = self.inside(node, f"/usr/lib/builder/{self.name}/start.py", role)
        command: list[str | Path] = ["sh", "-c", ALWAYS, "sh", *program]
        process = stack.enter_context(start(command, step="an engine", stdout=log, stderr=log))
        stack.callback(end, process)
        return process

    def running_inside(self, node: Node, *programs: str) -> list[int]:
        """The processes of a node that begin with a word like one of ``programs``, by their numbers in our
        namespace."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_text().split("\0")[:3]
                there = any(word.endswith(programs) for word in words)
                if there and (path / "ns/net").readlink() == Path(f"/proc/{node.pid}/ns/net").readlink():
                    found.append(int(path.name))
        return found

    def task_ran_everywhere(self) -> str:
        """What the trial looks at, judged as the cluster test judges it."""
        (look,) = self.trial.looks
        head = next(node for node in self.nodes if node.name == look.node)
        # Beside what runs there already: a driver looks for its node's Ray among the processes.
        (pid, *_) = self.running_inside(head, "/usr/local/bin/python")
        spaces = ("--mount", "--pid", "--uts", "--net", "--ipc")
        argv = ["nsenter", "--target", str(pid), *spaces, "--", "/usr/local/bin/python", look.command.split()[-1]]
        said = run(argv, step="the task", env={"HOME": f"/var/lib/{self.name}"}).stdout
        verdict = self.trial.judge([said])
        assert verdict.proven, f"{verdict.said}\n{verdict.shown}"
        return verdict.said


def end(process: Popen[bytes]) -> None:
    """The loop and what it runs end without a word, as a power cut ends them."""
    running = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = [int(child) for child in running.read_text().split()] if process.poll() is None else []
    process.kill()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module", params=["dask", "ray"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plan, Path]]:
    """The plan of an example, and its engine's layer unpacked: made by the code that a build runs."""
    folder = tmp_path_factory.mktemp(request.param)
    spec = folder / f"{request.param}-pair.yaml"
    shutil.copy(EXAMPLES / spec.name, spec)
    cluster, cache = load(spec), Cache(default_root())
    with cache.locked():
        todo = plan.make(cluster, resolve.make(cluster, spec, cache))
        blobs = inputs.packages(todo, cache) | inputs.python(todo, folder, cache)
        (layer,) = (layer for layer in todo.layers if layer.name == "engine")
        squashed = engine.make(todo, layer, blobs, cache)
    sandbox.unsquash(squashed, folder / "tree")
    yield todo, folder / "tree"
    shutil.rmtree(folder)


@pytest.fixture
def pair(built: tuple[Plan, Path], lab: tuple[Node, Node], tmp_path: Path) -> Iterator[Pair]:
    todo, tree = built
    facts = nodefacts.of_cluster(todo.cluster, todo.lock)
    usr = nodetools.lay_out(tmp_path / "tools", facts["engine"]["name"])
    for node in lab:
        make_root(node.root, node.name, **facts)
        node.usr = usr
        if (hosts := todo.files(node.name).get("/etc/builder/hosts")) is not None:
            (node.root / "etc/builder/hosts").write_bytes(hosts)
        node.run("nft", "--file", "-", stdin=firewall_of(todo))
    state = tmp_path / "state"
    state.mkdir()
    yield Pair(todo, tree, usr, lab, state)
    for log in sorted(state.glob("*.log")):  # pytest shows it of a test that failed
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")


def firewall_of(todo: Plan) -> str:
    return todo.files("node1")["/etc/nftables.conf"].decode()


def test_the_cluster_works_and_gets_well(pair: Pair, tmp_path: Path) -> None:
    """Joins behind the spec's firewall, runs a task on each node; loses and regains a worker, then the head."""
    logs = [tmp_path / f"{node.name}.log" for node in pair.nodes]

    def says(text: str, after: Callable[[], object]) -> None:
        """Both nodes say ``text`` once more after something was done; they may have said it before."""
        before = [log.read_text().count(text) if log.exists() else 0 for log in logs]
        after()
        eventually(lambda: all(log.read_text().count(text) > old for log, old in zip(logs, before, strict=True)))

    def works() -> None:
        assert pair.task_ran_everywhere() == "a task ran on node1, node2"

    with ExitStack() as stack:
        for node, log in zip(pair.nodes, logs, strict=True):
            joining(stack, node, log)
        running: list[Popen[bytes]] = []
        says(JOINED, lambda: running.extend(pair.serve(stack, *role) for role in ROLES[pair.name]))
        works()
        found = pair.nodes[1].doctor()
        assert found["ports there"]["state"] == found["ports here"]["state"] == "ok", found

        says("builder-not-joined 1/2", lambda: end(running[-1]))
        says(JOINED, lambda: pair.serve(stack, *ROLES[pair.name][-1]))
        works()

        says("builder-not-joined 0/2", lambda: end(running[0]))
        says(JOINED, lambda: pair.serve(stack, *ROLES[pair.name][0]))
        works()


def hold_up(pair: Pair, node: Node) -> None:
    """Make Ray's start on a node slower than the limits that are written into it: its raylet comes to nothing for
    longer than `ray start` waits for it (30 s), and its agent for as long as the node is up."""

    def send(number: signal.Signals, *programs: str) -> list[int]:
        pids = pair.running_inside(node, *programs)
        for pid in pids:
            os.kill(pid, number)
        return pids

    eventually(lambda: send(signal.SIGSTOP, RAYLET))
    send(signal.SIGSTOP, *AGENT)  # the raylet may have started it already
    time.sleep(RAY_GIVES_UP)
    send(signal.SIGCONT, RAYLET)
    eventually(lambda: send(signal.SIGSTOP, *AGENT))


def test_who_is_in_is_read_as_the_cluster_test_reads_it(pair: Pair) -> None:
    """The request of the trial, sent to the real program: the shape of its answer is what the code expects.

    Ray has to get that far on a node that is far too slow for it.
    """
    with ExitStack() as stack:
        head = pair.nodes[0]
        for number, role in ROLES[pair.name]:
            if number == 0:
                pair.serve(stack, number, role)
        if pair.name == "ray":
            hold_up(pair, head)
        request = pair.trial.request
        url = f"http://127.0.0.1:{request.port}{request.path}"
        wanted = {"dask": "node1", "ray": "10.77.0.11"}[pair.name]

        def answers() -> bool:
            done = head.run(sys.executable, "-c", GET, url, check=False)
            return done.returncode == 0 and request.read(done.stdout.encode()) == wanted

        eventually(answers)
