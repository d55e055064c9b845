"""The checklist of a cluster that runs already: the same report as a boot test, from the real nodes over ssh.

Nothing is changed on a node. What cannot be looked at (no GPU in the spec, an engine that answers no requests) is
"not run", never passed.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from builder import engines, gpu
from builder.engines.trial import Trial
from builder.run import Completed
from builder.spec.model import Cluster, Node
from builder.status import argv as status_argv
from builder.status import ask as ssh_ask
from builder.status import host, row
from builder.verify.clock import Clock, RealClock
from builder.verify.clusterspec import ask as request_answer
from builder.verify.report import Report, Step, StepFailed, Timing

Ask = Callable[[Sequence[str]], Completed]

WELL = "every node is there, joined, and well"
DRIVER = "the driver sees every GPU"
ENGINE_GPU = "the engine computes on the GPU"
COMPLETION = "an answer that every node took part in"
SPEED = "tokens per second"


def argv(cluster: Cluster, node: Node, command: str) -> list[str]:
    """A shell command for root on a node. Pure."""
    *ssh, _ = status_argv(cluster, node)
    return [*ssh, f"sudo -n sh -c {shlex.quote(command)}"]


def verify(
    cluster: Cluster,
    plan: str | None,
    say: Callable[[str], None],
    *,
    ask: Ask = ssh_ask,
    clock: Clock | None = None,
) -> Report:
    """Go through the list. ``plan``: what the nodes should run, if that is known."""
    test = _Checklist(cluster, plan, say, ask, clock or RealClock())
    for name, what in (
        (WELL, test.well),
        (DRIVER, test.driver),
        (ENGINE_GPU, test.engine_gpu),
        (COMPLETION, test.completion),
        (SPEED, test.speed),
    ):
        test.step(name, what)
    return Report(
        title=f"checklist of {len(cluster.nodes)} real nodes",
        cluster=cluster.name,
        node="+".join(node.name for node in cluster.nodes),
        plan=plan or "",
        host={"how": f"ssh as {cluster.access.user}, and the engine's API, from this machine"},
        steps=tuple(one for one in test.steps if one.outcome != "not run"),
        checks=tuple(one for one in test.steps if one.outcome == "not run"),
        timings=tuple(test.timings),
    )


class _NotRunError(Exception):
    """What there is nothing to look at for."""


class _Checklist:
    def __init__(
        self, cluster: Cluster, plan: str | None, say: Callable[[str], None], ask: Ask, clock: Clock
    ) -> None:
        self.cluster, self._plan, self._say, self._ask, self._clock = cluster, plan, say, ask, clock
        self.kind = engines.of(cluster)
        self.steps: list[Step] = []
        self.timings: list[Timing] = []

    def step(self, name: str, what: Callable[[], Iterator[str]]) -> None:
        """One point of the list; a failure does not keep the others from being looked at."""
        began, seen = self._clock.now(), []
        outcome, reason, shown = "passed", "", ""
        try:
            for line in what():
                seen.append(line)
        except _NotRunError as nothing:
            outcome, reason = "not run", str(nothing)
        except StepFailed as failed:
            outcome, reason, shown = "failed", failed.reason, failed.evidence
        seconds = self._clock.now() - began
        evidence = "\n".join([*seen, *filter(None, [shown])])
        self.steps.append(Step(name, outcome, seconds, reason, evidence))  # type: ignore[arg-type]
        self._say(f"{name}: {outcome}{f': {reason}' if reason else ''}")

    def _on(self, node: Node, command: str) -> str:
        done = self._ask(argv(self.cluster, node, command))
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise StepFailed(f"{node.name}: `{command[:80]}` exited {done.returncode}", said)
        return done.stdout.strip()

    def well(self) -> Iterator[str]:
        bad = []
        for node in self.cluster.nodes:
            found = row(node, self._ask(status_argv(self.cluster, node)), self._plan)
            joined = f"joined {found.joined[0]}/{found.joined[1]}" if found.joined else "no engine"
            yield f"{node.name}: {'well' if found.good else 'NOT well'}, {joined}, {'; '.join(found.problems)}"
            if not found.good:
                bad.append(f"{node.name}: {'; '.join(found.problems) or joined}")
        if bad:
            raise StepFailed("; ".join(bad))

    def driver(self) -> Iterator[str]:
        stack = gpu.stack_of(self.cluster)
        if stack is None:
            raise _NotRunError("the spec has no gpu section")
        for node in self.cluster.nodes:
            query = "nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader"
            cards = self._on(node, query).splitlines()
            yield from (f"{node.name}: {card}" for card in cards)
            if len(cards) != stack.count:
                raise StepFailed(f"{node.name} has {len(cards)} GPUs, and the spec says {stack.count}")
            wrong = [card for card in cards if not card.split(",")[1].strip().startswith(f"{stack.driver}.")]
            if wrong:
                raise StepFailed(f"{node.name} has another driver than {stack.driver}: {wrong[0]}")

    def engine_gpu(self) -> Iterator[str]:
        if gpu.stack_of(self.cluster) is None:
            raise _NotRunError("the spec has no gpu section")
        command = self.kind.on_gpu(self.cluster)
        if command is None:
            raise _NotRunError(f"engine {self.kind.name} has no such look")
        for node in self.cluster.nodes:
            yield f"{node.name}: {self._on(node, command)}"

    def _trial(self) -> Trial:
        trial = self.kind.trial(self.cluster)
        if trial is None:
            raise _NotRunError(f"engine {self.kind.name} has nothing to be asked")
        return trial

    def completion(self) -> Iterator[str]:
        trial = self._trial()
        yield f"it says {self._answer(trial.request.node, trial.request.port, trial)[:200]!r}"
        said = [self._on(self.cluster.node(look.node), look.command) for look in trial.looks]
        verdict = trial.judge(said)
        if not verdict.proven:
            raise StepFailed(verdict.said, verdict.shown[-4000:])
        yield verdict.said

    def _answer(self, node: str, port: int, trial: Trial) -> str:
        base = f"http://{host(self.cluster.node(node))}:{port}"
        with _told(base):
            return request_answer(trial.request, base)

    def speed(self) -> Iterator[str]:
        trial = self._trial()
        if trial.speed is None:
            raise _NotRunError(f"engine {self.kind.name} makes no tokens")
        base = f"http://{host(self.cluster.node(trial.speed.node))}:{trial.speed.port}"
        began = self._clock.now()
        with _told(base):
            told = request_answer(trial.speed, base)
        seconds = self._clock.now() - began
        if not re.fullmatch("[0-9]+", told) or int(told) == 0 or seconds <= 0:
            raise StepFailed(f"{base} does not say how many tokens it made: {told[:100]!r}")
        self.timings.append(Timing(f"{told} tokens", seconds))
        yield f"{told} tokens in {seconds:.1f} s: {int(told) / seconds:.1f} tokens per second, the prompt included"


@contextlib.contextmanager
def _told(base: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise StepFailed(f"no answer from {base}: {getattr(error, 'reason', error)}") from error
