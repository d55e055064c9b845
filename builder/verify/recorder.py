"""Keeps the steps of a running boot test: which passed, which failed and why, which were never reached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from builder.verify.clock import Clock
from builder.verify.report import Step, StepFailed


class Recorder:
    """The steps named at the start, filled in as they happen."""

    def __init__(self, names: Sequence[str], clock: Clock, say: Callable[[str], None]) -> None:
        self._names = tuple(names)
        self._clock = clock
        self._say = say
        self._done: dict[str, Step] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Run one step; what the block appends is its evidence. StepFailed is recorded and passed on."""
        if name not in self._names:
            raise ValueError(f"{name} is not a step of this test")
        self._say(f"{name} …")
        evidence: list[str] = []
        began = self._clock.now()
        try:
            yield evidence
        except StepFailed as failed:
            shown = "\n".join(filter(None, [*evidence, failed.evidence]))
            self._done[name] = Step(name, "failed", self._clock.now() - began, failed.reason, shown)
            self._say(f"{name}: FAILED: {failed.reason}")
            raise
        seconds = self._clock.now() - began
        self._done[name] = Step(name, "passed", seconds, evidence="\n".join(evidence))
        self._say(f"{name}: ok ({seconds:.1f} s)")

    def steps(self) -> tuple[Step, ...]:
        """All steps in their order; those not reached say after which failure."""
        broken = next((name for name in self._names if self._failed(name)), None)
        reason = f"the step '{broken}' failed" if broken else "the test ended before it"
        return tuple(self._done.get(name, Step(name, "not run", reason=reason)) for name in self._names)

    def _failed(self, name: str) -> bool:
        return name in self._done and self._done[name].outcome == "failed"
