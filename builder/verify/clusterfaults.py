"""What is done to a cluster that has formed, to see that it is noticed, named, and gets well again."""

from __future__ import annotations

from collections.abc import Iterator

from builder.verify.clusterrequest import Engine
from builder.verify.group import Group, not_joined
from builder.verify.lan import Network
from builder.verify.member import Member
from builder.verify.perimeter import ports_are_shut
from builder.verify.report import StepFailed

# On the node: take away every rule of ours that lets a port in; exits 1 if there is none.
_FORGET = """\
handles=$(nft --handle list chain inet builder input | sed -n 's/.*dport {port} .*# handle \\([0-9]*\\)$/\\1/p')
test -n "$handles" || exit 1
for handle in $handles; do nft delete rule inet builder input handle $handle || exit 1; done
"""


def victim(group: Group) -> Member:
    """The node that suffers: the last that is not the head."""
    return next(member for member in reversed(group.all) if member is not group.head)


def forget_a_rule(group: Group, network: Network, engine: Engine) -> Iterator[str]:
    """By hand, as a person would who only wants to try something: one firewall rule less on one node.

    The doctor there must name the port, and this test's own look at the ports must fail.
    """
    node = victim(group)
    port = engine.listens[node.name][0]
    done = node.ssh.run(_FORGET.format(port=port), node.bench.limits.ssh)
    if done.returncode != 0:
        raise StepFailed(f"{node.name} has no rule for port {port} that could be taken away", done.stderr)
    yield f"{node.name} lets nobody in at port {port} any more"
    yield group.wait_diagnosed(node, f"tcp {port} ")
    try:
        seen = ports_are_shut(network, node, group)
    except StepFailed as failed:
        if f"port {port} " not in failed.reason:
            raise
        yield f"the look at the ports fails: {failed.reason}"
    else:
        raise StepFailed(f"port {port} of {node.name} is shut, and the look at the ports does not notice", seen)
    done = node.ssh.run("systemctl restart nftables", node.bench.limits.ssh)
    if done.returncode != 0:
        raise StepFailed(f"{node.name}: what the doctor says to do does not work", done.stderr)
    yield group.wait_healthy(node)
    yield f"{node.name}: {ports_are_shut(network, node, group)}"


def cut_the_power(group: Group, network: Network) -> Iterator[str]:
    """One node gets no word of it; the others must name it."""
    node = victim(group)
    others = [member for member in group.all if member is not node]
    cut = group.clock.now()
    node.stop()
    yield f"{node.name} has no power"
    patterns = {"builder-not-joined": not_joined(len(group.members), group.plan, node.name)}
    yield from group.wait_said(network, others, patterns, group.limits.missing, cut)
    yield f"said {group.clock.now() - cut:.0f} s after the cut"
    yield group.wait_missed(node.name)


def give_power_again(group: Group, network: Network, engine: Engine) -> Iterator[str]:
    """It must join again without help, and take part."""
    node = victim(group)
    back = group.clock.now()
    yield from group.boot(network, [node], "again")
    yield from group.wait_joined(network, group.all, back)
    yield f"joined {group.clock.now() - back:.0f} s after it had power"
    for member in group.all:
        yield group.wait_healthy(member)
    yield from group.complete(network, engine)


def reboot_all(group: Group, network: Network) -> Iterator[str]:
    """All at once, as after a power cut of the house that was announced."""
    for member in group.all:
        member.ssh.once("systemctl reboot")
    for member in group.all:
        yield group.left_by(member, "reboot")
        member.stop()
    yield from group.boot(network, group.all, "reboot")
    if group.request.engine is not None:
        yield from group.wait_joined(network, group.all)
        yield from group.complete(network, group.request.engine)
