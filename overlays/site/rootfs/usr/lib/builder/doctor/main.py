"""The command `node-doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from . import bundle, checks, facts, node, report

BROKEN = 2  # exit code: the node does not even know what it is


def main(arguments: list[str]) -> int:
    """Exit 0 if this node is joined and nothing is wrong, 1 with problems, 2 if nothing can be said."""
    parser = argparse.ArgumentParser(
        prog="node-doctor",
        description="Says why this node is not in the cluster, and what to do. Some checks need root.",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--bundle",
        nargs="?",
        const="",
        metavar="FILE",
        help="also write an archive (.tar.gz) with logs and state, secrets left out; default: in /var/tmp",
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        found = facts.gather(options.root)
    except node.UnknownError as error:
        print(f"node-doctor: {error}: this node was not installed by the builder, or not wholly", file=sys.stderr)
        return BROKEN
    results = checks.all_of(found)
    data = json.dumps(report.as_data(found, results, facts.ready()), indent=1)
    text = report.as_text(found, results)
    print(data if options.json else text, end="\n" if options.json else "")
    if options.bundle is not None:
        if os.geteuid() != 0:
            print(
                "node-doctor: without root the archive lacks the journal and the firewall: use sudo",
                file=sys.stderr,
            )
        target = (
            Path(options.bundle) if options.bundle else bundle.default_path(found.cluster["cluster"], found.node)
        )
        try:
            names = bundle.write(target, {"doctor.txt": text, "doctor.json": data}, options.root)
        except OSError as error:
            print(f"node-doctor: {target}: {error.strerror}", file=sys.stderr)
            return BROKEN
        print(
            f"{target}: {len(names)} files; secrets were left out, but look before you publish it", file=sys.stderr
        )
    return report.exit_code(results)
