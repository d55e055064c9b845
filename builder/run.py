"""The one place that starts processes.

Commands are argument lists, never shell text. A child gets a small fixed environment and no standard
input, so a build does not depend on who runs it; a failure quotes the line that explains it. The habit is
mkosi's (`mkosi/run.py`) and subiquity's (`server/runner.py`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builder.errors import BuilderError, Exit

TAIL_LINES = 15
# Whose certificates are trusted: OpenSSL's and uv's name for it, requests' and pip's, and git's.
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_PASSED_ON = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "http_proxy", "https_proxy", "no_proxy", *_TRUST)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Completed:
    """What a finished command printed."""

    stdout: str
    stderr: str
    returncode: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a child: a fixed PATH and locale, the few names passed on, and ``extra``."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": _PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **passed, **(extra or {})}


def which(program: str) -> str | None:
    """The path of ``program`` as a child of :func:`run` would find it."""
    return shutil.which(program, path=_PATH)


def run(
    argv: Sequence[str | Path],
    *,
    step: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    secrets: Sequence[str] = (),
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    code: Exit = Exit.TOOL,
) -> Completed:
    """Run a command to its end.

    ``step`` names what is being done, in words for a person ("making the squashfs"). With ``on_line`` each
    line of stdout and stderr, merged, is handed over as it comes and also returned as ``stdout``. ``secrets``
    never appear in a message.

    Raises BuilderError (``code``) if the program is missing, or, with ``check``, if it exits non-zero.
    """
    with start(
        argv,
        step=step,
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
    ) as process:
        if on_line is None:
            out, err = process.communicate(None if stdin is None else stdin.encode())
            stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
        else:
            assert process.stdout is not None
            lines = []
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                lines.append(line)
                on_line(line)
            stdout, stderr = "\n".join(lines), ""
    if check and process.returncode != 0:
        raise failure(argv, step, process.returncode, stdout, stderr, secrets=secrets, code=code)
    return Completed(stdout, stderr, process.returncode)


def pipe(
    producer: Sequence[str | Path],
    consumer: Sequence[str | Path],
    *,
    step: str,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run ``producer | consumer`` to the end; ``on_line`` gets what the producer says on stderr.

    Raises BuilderError if either fails; the producer's failure is the one reported when both do, since the
    consumer's is then its consequence.
    """
    with start(producer, step=step, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stderr is not None
        with tempfile.TemporaryFile() as complaints:
            with start(
                consumer, step=step, env=env, stdin=first.stdout, stdout=complaints, stderr=complaints
            ) as second:
                first.stdout.close()  # so that the producer notices when the consumer dies
                lines = []
                for raw in first.stderr:
                    lines.append(raw.decode(errors="replace").rstrip("\n"))
                    on_line(lines[-1])
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
    if first.returncode not in (0, -signal.SIGPIPE):
        raise failure(producer, step, first.returncode, "", "\n".join(lines))
    if second.returncode != 0:
        raise failure(consumer, step, second.returncode, "", said)
    if first.returncode != 0:
        raise failure(producer, step, first.returncode, "", "\n".join(lines))


@contextlib.contextmanager
def start(
    argv: Sequence[str | Path],
    *,
    step: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that runs beside us; it is waited for at the end, and killed if we leave by an error.

    Raises BuilderError if the program is missing.
    """
    command = [str(word) for word in argv]
    try:
        process = _popen(
            command,
            env=environment(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.exists():
            raise BuilderError(f"{step}: the folder {cwd} does not exist") from error
        raise BuilderError(
            f"{step}: {command[0]} is not installed",
            hint="`builder doctor` names the package; `builder doctor --install` installs it",
        ) from error
    try:
        yield process
    except BaseException:
        _stop(process)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def failure(
    argv: Sequence[str | Path],
    step: str,
    returncode: int,
    stdout: str,
    stderr: str,
    *,
    secrets: Sequence[str] = (),
    code: Exit = Exit.TOOL,
) -> BuilderError:
    """The error for a command that exited ``returncode``: the command, and the end of what it said."""
    said = (stderr.strip() or stdout.strip()).splitlines()[-TAIL_LINES:]
    command = shlex.join(str(word) for word in argv)
    if len(command) > 400:
        command = command[:400] + " …"
    text = f"{step} failed: {command} exited {returncode}\n" + "\n".join(f"  | {line}" for line in said)
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    hint = ""
    if "No space left on device" in text:
        hint = "the disk is full: free some space, or point --cache and --out at a larger disk"
    return BuilderError(text, hint=hint, code=code)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that is not needed any more; it may first tidy up, as mmdebstrap does."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """The only call of its kind in the project; the unit tests replace it to forbid processes."""
    return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]
