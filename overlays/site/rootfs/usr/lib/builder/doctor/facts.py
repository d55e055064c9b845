"""Gathers what the checks look at.

Files are read below ``root``; network, units and firewall are the running system's. Whatever cannot be learnt is
None, with the reason in ``limits``; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from pathlib import Path

from . import engines, members, net, node
from .commands import Done, run
from .look import Look
from .model import Door, Facts, Link, Peer, Unit

HASHED_BY_US = 256 << 20  # bytes of models that are hashed here; of more, builder-models.service's word is taken
SSH = 22
PROOF = "/usr/lib/builder/gpu/proof"
ROOT_NEEDED = "needs root: sudo node-doctor"
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts")
_SAID_OF_A_MODEL = re.compile(r"^(.+?): (missing|damaged: .*|\d+ bytes, should be \d+)$")


def gather(root: Path = Path("/")) -> Facts:
    """Everything, with the slow parts side by side; about as long as one time-out. Raises node.UnknownError."""
    cluster, me = node.cluster(root), node.name(root)
    manifest = node.manifest(root)
    node.address(cluster, me)
    engine = engines.of(cluster)
    limits: dict[str, str] = {}
    names = [entry["name"] for entry in cluster["nodes"]]
    doors = {name: tuple(engine.doors(cluster, name)) for name in names}
    look = Look(cluster, me, root)
    others = [entry for entry in cluster["nodes"] if entry["name"] != me and entry["address"] != "dhcp"]
    if engine.NAME != "none":
        look.ask_all(entry["name"] for entry in others)
    found = _side_by_side({entry["name"]: (_peer, entry, doors[entry["name"]], look) for entry in others})
    units = {name: _unit(name) for name in (*engine.units(cluster, me), "builder-models.service")}
    models, unhashed = _models(root, manifest)
    return Facts(
        node=me,
        cluster=cluster,
        plan=manifest["plan"],
        links=links(root),
        cloud_init=_cloud_init(root),
        ruleset=_ruleset(limits),
        peers=found,
        doors=doors,
        multicast=engines.multicast(cluster),
        heard=_heard(cluster, me, look, limits),
        units=units,
        models=models,
        unhashed=unhashed,
        gpus=_gpus(cluster, limits),
        members=members.seen(cluster, look, manifest["plan"]) or None,
        url=engine.url(cluster),
        notes=engines.notes(cluster, root),
        limits=limits,
    )


def ready() -> bool | None:
    """Whether builder-ready found all in order; None while it has not reported yet."""
    state = run("systemctl", "is-active", "builder-ready.service").out.strip()
    return {"active": True, "failed": False}.get(state)


def links(_root: Path) -> tuple[Link, ...]:
    """The network interfaces apart from the loopback one, by ``ip``."""
    shown = run("ip", "-json", "address", "show")
    return tuple(parse_links(shown.out)) if shown.rc == 0 else ()


def parse_links(text: str) -> list[Link]:
    """Pure."""
    found = []
    for entry in json.loads(text or "[]"):
        flags = entry.get("flags", [])
        if "LOOPBACK" in flags:
            continue
        carrier = None if "UP" not in flags else "LOWER_UP" in flags
        addresses = tuple(info["local"] for info in entry.get("addr_info", []) if info.get("family") == "inet")
        found.append(Link(entry["ifname"], entry.get("address", ""), carrier, addresses))
    return found


def _cloud_init(root: Path) -> tuple[str, ...] | None:
    """Its errors; None if it did not finish, which a node without it would say too."""
    try:
        result = json.loads((root / "run/cloud-init/result.json").read_text())
        return tuple(map(str, result["v1"]["errors"]))
    except (OSError, ValueError, KeyError):
        return None


def _heard(cluster: dict, me: str, look: Look, limits: dict[str, str]) -> dict[str, float] | None:
    """Whom this node's builder-join has heard by multicast."""
    if engines.multicast(cluster) is None:
        return None
    says = look.ask(me)
    if says is None:
        limits["heard"] = f"builder-join on this node: {look.why[me]}"
    elif says.get("heard") is None:
        limits["heard"] = "builder-join on this node has not listened for long enough; try again in half a minute"
    return says.get("heard") if says else None


def _ruleset(limits: dict[str, str]) -> tuple[dict, ...] | None:
    shown = run("nft", "--json", "list", "ruleset")
    if shown.rc == 0:
        return tuple(json.loads(shown.out)["nftables"])
    limits["ruleset"] = ROOT_NEEDED if os.geteuid() != 0 else f"nft: {_first(shown)}"
    return None


def _peer(entry: dict, doors: tuple[Door, ...], look: Look) -> Peer:
    name, address = entry["name"], entry["address"]
    says = look.ask(name) if name in look.why or name in look.ahead else None
    serving = set(says["serving"]) if says else set()
    knocks = {}
    for door in doors:
        if look.connected(name, door.port):
            knocks[door.port] = "open"
        elif door.serial and door.port in serving:
            knocks[door.port] = "not tried"  # see Door: a look would cost a place in its queue
        else:
            knocks[door.port] = net.knock(address, door.port)
    if not doors or all(state == "not tried" for state in knocks.values()):
        knocks[SSH] = net.knock(address, SSH)
    return Peer(
        name,
        address,
        knocks,
        neighbour=_neighbour(address),
        ping=_ping(address),
        says=says,
        no_answer=look.why.get(name, ""),
        ahead=look.ahead.get(name),
    )


def _neighbour(address: str) -> str:
    shown = run("ip", "-json", "neighbour", "show", "to", address)
    if shown.rc != 0 or not shown.out.strip():
        return ""
    states = [state for entry in json.loads(shown.out) for state in entry.get("state", [])]
    return states[0] if states else ""


def _ping(address: str) -> bool | None:
    done = run("ping", "-n", "-q", "-c", "1", "-W", "2", address)
    return {0: True, 1: False}.get(done.rc)  # 2 and 127: it could not be tried


def _unit(name: str) -> Unit:
    shown = run("systemctl", "show", "--property", ",".join(_PROPERTIES), name)
    values = dict(line.partition("=")[::2] for line in shown.out.splitlines())
    # By the field, so that only the process's own lines are taken and not systemd's about it.
    log = run(
        "journalctl",
        "--boot",
        "--quiet",
        "--no-pager",
        "--output",
        "cat",
        "--lines",
        "30",
        f"_SYSTEMD_UNIT={name}",
    )
    return Unit(
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        restarts=int(values.get("NRestarts") or 0),
        last=last_error(log.out) or ("" if os.geteuid() == 0 else "its log needs root: sudo node-doctor"),
    )


def last_error(log: str) -> str:
    """The last line that speaks of an error, else the last line; for people, so at most 300 characters. Pure."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    bad = [
        line for line in lines if re.search(r"error|fail|abort|cannot|unable|refused|damaged|missing", line, re.I)
    ]
    return (bad or lines or [""])[-1][:300]


def _models(root: Path, manifest: dict) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """What is wrong with each model, and the names of those whose content was not read here."""
    files = {file["path"]: file for file in manifest["files"]}
    listed = {model["name"]: files[model["path"]] for model in manifest["models"]}
    small = sum(file["size"] for file in listed.values()) <= HASHED_BY_US
    said = {} if small or not listed else _said_of_models()
    found = {
        name: said.get(name) or _complaint(root / node.MODELS / name, file, hashing=small)
        for name, file in listed.items()
    }
    return found, () if small else tuple(listed)


def _said_of_models() -> dict[str, str]:
    log = run(
        "journalctl", "--boot", "--quiet", "--no-pager", "--output", "cat", "_SYSTEMD_UNIT=builder-models.service"
    )
    return parse_models(log.out)


def parse_models(log: str) -> dict[str, str]:
    """What builder-models.service complained of, by the file's name, which may have blanks in it. Pure."""
    return {match[1]: match[2] for line in log.splitlines() if (match := _SAID_OF_A_MODEL.match(line))}


def _complaint(path: Path, file: dict, *, hashing: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != file["size"]:
            return f"{size} bytes, should be {file['size']}"
        if not hashing:
            return None
        with path.open("rb") as opened:
            actual = hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if actual == file["sha256"] else f"damaged: sha256 {actual}, should be {file['sha256']}"


def _gpus(cluster: dict, limits: dict[str, str]) -> tuple[str, ...] | None:
    """What is right with the GPUs, by the stack's own proof; empty with the reason if something is not.

    None where the cluster is to have none, or this is a virtual machine without one: its cards are elsewhere.
    """
    if not cluster.get("gpu"):
        limits["gpus"] = "the cluster's spec has no GPU"
        return None
    shown = run(PROOF, "--card", timeout=90)
    try:
        results = json.loads(shown.out)
    except ValueError:
        limits["gpus_why"] = f"{PROOF}: {_first(shown)}"
        return ()
    virtual = run("systemd-detect-virt", "--vm", "--quiet").rc == 0
    gpus, why = told(results, virtual)
    limits["gpus" if gpus is None else "gpus_why"] = why
    return gpus


def told(results: list[dict], virtual: bool) -> tuple[tuple[str, ...] | None, str]:
    """What a proof's results come to: what is right; or nothing, and why. Pure."""
    wrong = [f"{one['name']}: {one['said']}" for one in results if one["state"] == "problem"]
    unseen = [one["said"] for one in results if one["state"] == "not run"]
    if wrong:
        return (), "; ".join(wrong)
    if unseen and virtual:
        return None, f"{unseen[0]}, which is a virtual one; the rest of the stack is proven"
    if unseen:
        return (), unseen[0]
    return tuple(one["said"] for one in results if one["name"].startswith("cards")), ""


def _first(done: Done) -> str:
    return next(iter((done.err.strip() or done.out.strip()).splitlines()), f"exit status {done.rc}")


def _side_by_side(jobs: dict) -> dict:
    """Call each (function, *arguments) in a thread of its own; results by the same keys."""
    results: dict = {}

    def work(key, function, *arguments):
        results[key] = function(*arguments)

    threads = [threading.Thread(target=work, args=(key, *job), daemon=True) for key, job in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {key: results[key] for key in jobs if key in results}
