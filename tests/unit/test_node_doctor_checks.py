"""The doctor's checks, each a pure function of facts: what is a problem, what is fine, what was not run."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodetools

checks = nodetools.module("checks")
facts_module = nodetools.module("facts")
model = nodetools.module("model")
report = nodetools.module("report")

PLAN, OLD = "a" * 64, "b" * 64
CLUSTER = {
    "cluster": "pair",
    "subnet": "10.77.0.0/24",
    "nodes": [{"name": "node1", "address": "10.77.0.11"}, {"name": "node2", "address": "10.77.0.12"}],
    "engine": {"name": "llamacpp"},
    "ports": [{"proto": "tcp", "ports": "22", "source": None, "why": "ssh"}],
}
RPC = model.Door(50052, "llamacpp-rpc.service", "llama.cpp RPC", True)
API = model.Door(8080, "llamacpp-server.service", "llama.cpp API")
NIC = model.Link("enp1s0", "52:54:00:77:00:01", True, ("10.77.0.11",))
SAYS = {"node": "node2", "plan": PLAN}
ACTIVE = model.Unit("loaded", "active", "running", "success")


def peer(name: str = "node2", knock: str = "open", **changes: Any) -> Any:
    return model.Peer(name, "10.77.0.12", {50052: knock}, **{"neighbour": "REACHABLE", "says": SAYS, **changes})


def facts(**changes: Any) -> Any:
    """A head that is joined and finds nothing wrong, with changes."""
    sound = {
        "links": (NIC,),
        "ruleset": (
            {"table": {"family": "inet", "name": "builder"}},
            {
                "chain": {
                    "family": "inet",
                    "table": "builder",
                    "name": "input",
                    "hook": "input",
                    "policy": "accept",
                }
            },
        ),
        "peers": {"node2": peer(ahead=0.1)},
        "doors": {"node1": (API,), "node2": (RPC,)},
        "units": {"llamacpp-server.service": ACTIVE, "builder-models.service": ACTIVE},
        "models": {"tiny.gguf": None},
        "gpus": None,
        "limits": {"gpus": "the cluster's spec has no GPU"},
        "members": {"node1": None, "node2": None},
    }
    return model.Facts("node1", {**CLUSTER, **changes.pop("cluster", {})}, PLAN, **{**sound, **changes})


def test_a_sound_node_has_no_problem_and_says_what_it_did_not_look_at() -> None:
    results = checks.all_of(facts())
    assert report.exit_code(results) == 0
    not_run = {name for name, result in results.items() if isinstance(result, model.NotRun)}
    assert not_run == {"multicast", "gpu"}


LOST_CARRIER = model.Link("enp1s0", "52:54:00:77:00:01", False, ())
BARE = model.Link("enp1s0", "52:54:00:77:00:01", True, ())
OTHER = model.Link("enp1s0", "52:54:00:77:00:01", True, ("192.168.1.5",))
DHCP = {"nodes": [{"name": "node1", "address": "dhcp"}]}


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        ({"links": (LOST_CARRIER,)}, "the address 10.77.0.11 is missing", "no carrier on enp1s0"),
        ({"links": (BARE,), "cloud_init": ("bad seed",)}, "10.77.0.11 is missing", "cloud-init failed: bad seed"),
        ({"links": (BARE,), "cloud_init": None}, "10.77.0.11 is missing", "cloud-init did not finish"),
        ({"links": (OTHER,)}, "10.77.0.11 is missing", "52:54:00:77:00:01 192.168.1.5"),
        ({"links": ()}, "10.77.0.11 is missing", "no network card"),
        ({"links": (BARE,), "cluster": DHCP}, "no address came by DHCP", "without address"),
    ],
)
def test_an_address_that_is_missing_or_wrong(changes: dict[str, Any], what: str, why: str) -> None:
    found = checks.address(facts(**changes))
    assert what in found.what
    assert why in found.why
    assert found.do


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (peer(knock="unreachable", neighbour="FAILED", says=None, ping=False), "nobody answers ARP"),
        (peer(knock="timed out", neighbour="INCOMPLETE", says=None), "nobody answers ARP"),
        (peer(knock="unreachable", neighbour="", says=None), "there is no way to it"),
        (peer(knock="timed out", neighbour="", says=None), "answers nothing"),
        (peer(knock="timed out", neighbour="REACHABLE", says=None), None),
        (peer(knock="refused", neighbour="", says=None), None),
        (peer(knock="timed out", neighbour="", says=None, ping=True), None),
        (peer(knock="not tried", neighbour=""), None),
    ],
)
def test_a_peer_that_is_there_or_not(seen: Any, why: str | None) -> None:
    found = checks.peers(facts(peers={"node2": seen}))
    assert isinstance(found, model.Ok) if why is None else why in found.why and "node2" in found.what


def test_when_nobody_can_be_reached_this_node_is_looked_at_first() -> None:
    gone = peer(knock="unreachable", neighbour="FAILED", says=None)
    found = checks.peers(facts(peers={"node2": gone, "node3": gone._replace(name="node3")}))
    assert "this node's cable" in found.do


@pytest.mark.parametrize(
    ("knock", "why", "do"),
    [
        ("refused", "llamacpp-rpc.service does not run on it", "systemctl status llamacpp-rpc.service"),
        ("timed out", "a firewall drops", "on node2: sudo node-doctor"),
    ],
)
def test_a_port_that_is_closed_there(knock: str, why: str, do: str) -> None:
    found = checks.ports_there(facts(peers={"node2": peer(knock=knock)}))
    assert f"node2:50052 (llama.cpp RPC) {knock}" in found.what
    assert why in found.why
    assert do in found.do


def test_a_dead_peer_s_ports_are_not_reported_as_closed() -> None:
    gone = peer(knock="unreachable", neighbour="FAILED", says=None)
    assert isinstance(checks.ports_there(facts(peers={"node2": gone})), model.NotRun)


def test_a_port_in_use_is_fine_and_said_to_be_in_use() -> None:
    assert checks.ports_there(facts(peers={"node2": peer(knock="not tried")})).what == "node2:50052 in use"


def test_the_firewall_that_cannot_be_read_is_not_run_and_one_that_is_not_loaded_is_a_problem() -> None:
    unread = checks.ports_here(facts(ruleset=None, limits={"ruleset": "needs root: sudo node-doctor"}))
    assert unread == model.NotRun("needs root: sudo node-doctor")
    assert "not loaded" in checks.ports_here(facts(ruleset=())).what


@pytest.mark.parametrize(
    ("peers", "kind", "text"),
    [
        ({"node2": peer()}, "Ok", "on 2 nodes"),
        ({"node2": peer(), "node3": peer("node3", says=None)}, "Ok", "no answer from node3"),
        ({"node2": peer(says={"plan": OLD})}, "Problem", "node2 has bbbbbbbbbbbb; this node has aaaaaaaaaaaa"),
        ({"node2": peer(says=None)}, "NotRun", "no other node's builder-join answers"),
        ({}, "NotRun", "addresses come by DHCP"),
    ],
)
def test_plans_that_differ(peers: dict[str, Any], kind: str, text: str) -> None:
    found = checks.plan(facts(peers=peers))
    assert type(found).__name__ == kind
    assert text in " ".join(found)


@pytest.mark.parametrize(
    ("rule", "said"), [("flag", "than here"), ("refuse", "than here, which the spec refuses")]
)
def test_plans_that_differ_are_a_problem_either_way(rule: str, said: str) -> None:
    """``members`` has the refusal already; this check says what to do about it."""
    found = facts(peers={"node2": peer(says={"plan": OLD})}, cluster={"join": {"mixed_plans": rule}})
    results = checks.all_of(found)
    assert results["plan"].what == f"node2: another plan {said}"
    assert "reinstall" in results["plan"].do
    assert report.exit_code(results) == 1


@pytest.mark.parametrize(
    ("ahead", "what", "why"),
    [
        ({"node2": 1.9}, None, None),
        ({"node2": -1.9}, None, None),
        ({"node2": 3.0}, "node2 is 3 s ahead", "apart"),
        ({"node2": -90.0}, "node2 is 90 s behind", "apart"),
        ({"node2": 60.0, "node3": 60.5}, "node2 is 60 s ahead, node3", "this node's clock is wrong"),
        ({"node2": 60.0, "node3": 0.0}, "node2 is 60 s ahead", "apart"),
    ],
)
def test_clocks_that_differ(ahead: dict[str, float], what: str | None, why: str | None) -> None:
    found = checks.clock(facts(peers={name: peer(name, ahead=seconds) for name, seconds in ahead.items()}))
    if what is None:
        assert isinstance(found, model.Ok)
    else:
        assert what in found.what
        assert why is not None and why in found.why


CRASHED = model.Unit("loaded", "activating", "auto-restart", "exit-code", 7, "error: failed to load model")
STOPPED = model.Unit("loaded", "inactive", "dead", "success", 0, "")
FAILED = model.Unit("loaded", "failed", "failed", "exit-code", 0, "tiny.gguf: damaged: sha256 …")


@pytest.mark.parametrize(
    ("server", "verifier", "kind", "text"),
    [
        (ACTIVE, ACTIVE, "Ok", "llamacpp-server.service runs"),
        (ACTIVE._replace(restarts=3), ACTIVE, "Ok", "restarted 3 times"),
        (CRASHED, ACTIVE, "Problem", "error: failed to load model"),
        (FAILED._replace(last=""), ACTIVE, "Problem", "result exit-code, and it logged nothing"),
        (STOPPED, ACTIVE, "Problem", "llamacpp-server.service is inactive"),
        (STOPPED, FAILED, "Problem", "builder-models.service failed"),
        (model.Unit("not-found", "inactive"), ACTIVE, "Problem", "is not installed"),
        (model.Unit("", ""), ACTIVE, "NotRun", "systemd does not answer"),
    ],
)
def test_an_engine_that_does_not_run(server: Any, verifier: Any, kind: str, text: str) -> None:
    units = {"llamacpp-server.service": server, "builder-models.service": verifier}
    found = checks.engine(facts(units=units))
    assert type(found).__name__ == kind
    assert text in " ".join(found)


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"models": {"a.gguf": None, "b.gguf": "missing"}}, "Problem", "b.gguf: missing"),
        ({"models": {}}, "NotRun", "no models"),
        ({"models": {"a": None}, "unhashed": ("a",)}, "Ok", "a verified at this boot"),
        ({"models": {"a": None}, "unhashed": ("a",), "units": {}}, "NotRun", "has not verified"),
    ],
)
def test_models_are_named(changes: dict[str, Any], kind: str, text: str) -> None:
    found = checks.models(facts(**changes))
    assert type(found).__name__ == kind
    assert text in " ".join(found)


def test_a_gpu_that_should_be_there() -> None:
    found = checks.gpu(facts(gpus=(), limits={"gpus_why": "NVIDIA-SMI has failed"}))
    assert (found.what, found.why) == ("the GPU cannot be used", "NVIDIA-SMI has failed")
    assert isinstance(checks.gpu(facts(gpus=("GPU 0: NVIDIA GeForce RTX 5070",))), model.Ok)


@pytest.mark.parametrize(
    ("state", "virtual", "kind", "text"),
    [
        ("ok", False, "Ok", "GeForce RTX 3090"),
        ("problem", False, "Problem", "the GPU cannot be used cards are the spec's: GeForce RTX 3090"),
        ("problem", True, "Problem", "cannot be used"),
        ("not run", False, "Problem", "cannot be used"),
        ("not run", True, "NotRun", "which is a virtual one"),
    ],
)
def test_a_card_that_is_missing_is_a_problem_where_it_could_be(
    state: str, virtual: bool, kind: str, text: str
) -> None:
    results = [
        {"name": "modules exist", "state": "ok", "said": "nvidia"},
        {"name": "cards are the spec's", "state": state, "said": "GeForce RTX 3090"},
    ]
    gpus, why = facts_module.told(results, virtual)
    found = checks.gpu(facts(gpus=gpus, limits={"gpus" if gpus is None else "gpus_why": why}))
    assert type(found).__name__ == kind
    assert text in " ".join(found)


def test_who_is_missing_is_named_with_the_reason() -> None:
    found = checks.membership(facts(members={"node1": None, "node2": "no answer"}))
    assert (found.what, found.why) == ("joined 1/2", "node2: no answer")


def test_without_an_engine_nothing_is_claimed() -> None:
    alone = facts(cluster={"engine": {"name": "none"}}, doors={}, units={}, members=None, peers={"node2": peer()})
    results = checks.all_of(alone._replace(peers={"node2": peer(says=None)}))
    for name in ("ports there", "multicast", "plan", "clock", "engine", "joined"):
        assert isinstance(results[name], model.NotRun), name


def test_problems_come_first_each_on_one_line_with_what_to_do() -> None:
    results = checks.all_of(facts(links=(LOST_CARRIER,), models={"tiny.gguf": "missing"}))
    lines = report.as_text(facts(), results).splitlines()[1:]
    assert [line.split()[0] for line in lines[:3]] == ["PROBLEM", "PROBLEM", "ok"]
    assert "no carrier on enp1s0. Do: plug in the cable" in lines[0]
    assert len(lines) == len(results)
    assert report.exit_code(results) == 1


def test_the_json_is_what_status_reads() -> None:
    found = facts(models={"tiny.gguf": "missing"})
    data = report.as_data(found, checks.all_of(found), True)
    assert (data["joined"], data["ready"], data["plan"], data["node"]) == ([2, 2], True, PLAN, "node1")
    (problem,) = (check for check in data["checks"] if check["state"] == "problem")
    assert problem["name"] == "models" and problem["what"] and problem["why"] and problem["do"]


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("loading\nerror: no such file\nbye", "error: no such file"),
        ("first error\nsecond ERROR\n", "second ERROR"),
        ("all is well\nstill is\n", "still is"),
        ("", ""),
        ("error " + "x" * 999, "error " + "x" * 294),
    ],
)
def test_the_line_that_explains_a_crash(log: str, line: str) -> None:
    assert facts_module.last_error(log) == line


def test_what_the_verifier_said_of_models() -> None:
    log = (
        "tiny.gguf: verified\norg--name/a b/x-00001-of-00002.gguf: missing\n"
        "y.gguf: 3 bytes, should be 4\nz: w.gguf: damaged: sha256 aa, should be bb\nTraceback: missing it\n"
    )
    assert facts_module.parse_models(log) == {
        "org--name/a b/x-00001-of-00002.gguf": "missing",
        "y.gguf": "3 bytes, should be 4",
        "z: w.gguf": "damaged: sha256 aa, should be bb",
    }


def test_links_as_ip_prints_them() -> None:
    shown = (
        '[{"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"addr_info":[{"family":"inet","local":"127.0.0.1"}]},'
        '{"ifname":"a","address":"52:54:00:00:00:01","flags":["UP","LOWER_UP"],'
        '"addr_info":[{"family":"inet","local":"10.0.0.1"},{"family":"inet6","local":"fe80::1"}]},'
        '{"ifname":"b","flags":["NO-CARRIER","UP"],"addr_info":[]},{"ifname":"c","flags":[],"addr_info":[]}]'
    )
    assert facts_module.parse_links(shown) == [
        model.Link("a", "52:54:00:00:00:01", True, ("10.0.0.1",)),
        model.Link("b", "", False, ()),
        model.Link("c", "", None, ()),
    ]
