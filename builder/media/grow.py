"""xorriso's commands that grow a copy of an ISO image, its boot equipment written anew. Pure.

They are a script, not a command line: a cluster of a thousand nodes would not fit on one.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.media.payload import FOLDER

ADVICE = "media.base_iso takes Ubuntu's live-server ISO, 24.04 or later"


def report_argv(source_iso: Path) -> list[str | Path]:
    """The command that prints the source's boot equipment as commands. Pure."""
    return [
        *("xorriso", "-no_rc", "-report_about", "SORRY", "-indev", f"stdio:{source_iso}"),
        *("-report_el_torito", "cmd"),
    ]


def replayed(report: str, source_iso: Path) -> list[list[str]]:
    """The source's boot equipment as xorriso's commands for the copy. Pure.

    What the report takes out of "the imported ISO" is taken out of the source, as out of any file: only so is
    the ESP written behind the new files, and the partition before it made to hold them. The volume's date is
    left to who builds.

    Raises BuilderError (MEDIUM) if the ESP is no appended partition.
    """
    wanted = []
    for line in report.splitlines():
        words = shlex.split(line)
        if words[:1] == ["-volume_date"] or not words or not words[0].startswith("-"):
            continue
        wanted.append([_redirected(word, source_iso) for word in words])
    if not any(words[0] == "-append_partition" for words in wanted):
        raise BuilderError(
            f"{source_iso.name}: its ESP is not an appended partition", hint=ADVICE, code=Exit.MEDIUM
        )
    return wanted


def _redirected(word: str, source_iso: Path) -> str:
    """``--interval:KIND:RANGE:ZEROED:FILE``, with the source for the file; or an appended partition by number."""
    head, interval, rest = word.partition("--interval:")
    if not interval:
        return word
    kind, span, zeroed, _ = rest.split(":", 3)
    if kind.startswith("appended_partition_"):
        number = kind.removeprefix("appended_partition_").partition("_")[0]
        return f"{head}{interval}appended_partition_{number}:{span}:{zeroed}:"
    return f"{head}{interval}local_fs:{span}:{zeroed}:{source_iso}"


def xorriso_argv(script: Path) -> list[str | Path]:
    """The command that runs a script. Pure."""
    return [
        *("xorriso", "-no_rc", "-abort_on", "SORRY", "-return_with", "SORRY", "32"),
        *("-report_about", "WARNING", "-options_from_file", script),
    ]


def commands(
    part: Path,
    equipment: list[list[str]],
    files: Mapping[str, Path],
    plan_id: str,
    epoch: int,
    *,
    joliet: bool,
) -> str:
    """The whole script for xorriso, one command a line. Pure; same input gives the same image.

    ``files``: path on the medium → file on this machine. xorriso lays them out in the order of their paths.
    """
    date = f"{datetime.fromtimestamp(epoch, UTC):%Y%m%d%H%M%S}00"
    paths = sorted(files)
    lines = [
        ["-disk_pattern", "off"],
        ["-iso_rr_pattern", "off"],
        ["-stdio_sync", "off"],
        ["-fs", "64m"],
        ["-dev", f"stdio:{part}"],
        ["-compliance", "iso_9660_level=3:joliet_long_names:joliet_long_paths"],
        ["-joliet", "on" if joliet else "off"],
        ["-padding", "included"],
        ["-boot_image", "any", "discard"],
        *equipment,
        ["-boot_image", "any", f"gpt_disk_guid={uuid.UUID(plan_id[:32])}"],
        ["-volume_date", "uuid", date],
        ["-overwrite", "on"],
        *(["-map", str(files[path]), path] for path in paths),
        *(["-find", path, "-exec", "mkisofs_r", "--"] for path in _tops(paths)),
        *(["-alter_date_r", "b", f"={epoch}", path, "--"] for path in _tops(paths)),
        ["-commit"],
    ]
    return "".join(f"{shlex.join(words)}\n" for words in lines)


def _tops(paths: list[str]) -> list[str]:
    """Our folder as one, and every other path by itself."""
    return [FOLDER, *(path for path in paths if not path.startswith(f"{FOLDER}/"))]
