"""Faults of exo that kept clusters from forming, and the edits of its source that mend them. Pure data.

Each is (path, old text, new text); a source without the old text, once, is refused by the build. What was seen of
each is in docs/exo.md.
"""

from __future__ import annotations

_DISCOVERY = "rust/networking/src/discovery.rs"

# The last rank of a ring connects when the others say that they are connecting, and they say so by a thread of the
# runner's process. MLX then waits for that rank and lets no other thread of the process run: if the thread was not
# quick enough, both wait for ever. Seen in 2 of 5 placements on a busy machine (docs/exo.md).
_CONNECT = "                self.generator.group = initialize_mlx(self.bound_instance)\n"
LET_THE_STATUS_OUT = (
    "src/exo/worker/runner/llm_inference/runner.py",
    _CONNECT,
    f"                time.sleep(0.5)  # cluster-image-builder: let the status above out first\n{_CONNECT}",
)

# A peer that does not answer a ping within 2.5 s is dropped, and that is an election, in which all may be lost.
# Machines that are busy for as long (two emulated ones were, under test) never keep together. exo itself
# gives a silent node up after 30 s.
_PING = "const PING_TIMEOUT: Duration = Duration::from_millis("
BE_PATIENT = (_DISCOVERY, f"{_PING}2_500);", f"{_PING}20_000);")

# Each node counts votes for 3 s, from when it heard of the election itself. A vote that comes later is kept, and
# never looked at: with a peer that is slower than that, each of two nodes stays its own master, for ever. Now a
# better candidate that comes late makes its round be counted once more.
_LAST = "                self._candidates.append(message)\n"
COUNT_LATE_VOTES = (
    "src/exo/shared/election.py",
    _LAST,
    "                # cluster-image-builder: a better candidate came when this round was over\n"
    "                over = self._campaign_cancel_scope is None\n"
    "                late = over and message > max(self._candidates, default=message)\n"
    f"{_LAST}"
    "                if late:\n"
    "                    self._tg.start_soon(self._campaign, self._candidates, DEFAULT_ELECTION_TIMEOUT)\n",
)

# A node has a new id at every start, and its old one is dialled at its address every 5 s for as long as mDNS knows
# it, which is 40 minutes. Each time the node that came back has a connection that opens and closes, and holds an
# election. Now an address at which another id answered is dialled for the old one no more.
_FIELD = "    retry_delay: Delay, // retry interval\n"
_NEW = "            retry_delay: Delay::new(RETRY_CONNECT_INTERVAL),\n"
_EVENT = "            // since we are running TCP/IP transport layer, we are assuming that\n"
_DIAL = "            for (p, mas) in self.mdns_discovered.clone() {\n"
FORGET_OLD_IDS = (
    (_DISCOVERY, _FIELD, f"{_FIELD}    gone: std::collections::HashSet<PeerId>, // cluster-image-builder\n"),
    (_DISCOVERY, _NEW, f"{_NEW}            gone: Default::default(),\n"),
    (
        _DISCOVERY,
        _EVENT,
        "            FromSwarm::DialFailure(libp2p::swarm::behaviour::DialFailure {\n"
        "                peer_id: Some(peer_id),\n"
        "                error: libp2p::swarm::DialError::WrongPeerId { .. },\n"
        "                ..\n"
        "            }) => {\n"
        "                self.gone.insert(peer_id);\n"
        "            }\n"
        f"{_EVENT}",
    ),
    (
        _DISCOVERY,
        _DIAL,
        f"{_DIAL}                if self.gone.contains(&p) {{ continue; }}\n",
    ),
)
