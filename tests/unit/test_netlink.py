"""What the kernel refuses is named, and what is packed is what it is asked.

(Nothing that is named here exists, so nothing can be changed, whoever runs it.)
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.errors import EmulatorError
from emulator.netlink import (
    Ifla,
    IflaInfo,
    Kind,
    LinkEnd,
    Netlink,
    Rta,
    Rtax,
    address,
    attribute,
    attributes,
    messages,
    neighbour,
    route,
    route_metrics,
    veth_pair,
)
from emulator.shaping import TokenBucket, bucket_counts, buckets, queues

NO_SUCH_INTERFACE = 2_000_000_000
DATA = Path(__file__).parent / "data"


def test_the_first_refusal_of_a_batch_is_named() -> None:
    requests = [address(NO_SUCH_INTERFACE, "192.0.2.7")]
    requests += [neighbour(NO_SUCH_INTERFACE, "192.0.2.8", "02:00:00:00:00:01") for _ in range(250)]
    with pytest.raises(EmulatorError, match=r"^the kernel refuses address 192\.0\.2\.7: .+"):
        Netlink().send(requests)


def test_a_socket_works_on_after_a_refusal() -> None:
    netlink = Netlink()
    for ip in ("192.0.2.7", "192.0.2.8"):
        with pytest.raises(EmulatorError, match=ip):
            netlink.send([address(NO_SUCH_INTERFACE, ip)])
    listed = [kind for kind, *_ in messages(queues(netlink))]
    assert listed[-1] == Kind.DONE
    assert set(listed[:-1]) <= {Kind.NEWQDISC}


def message(body: bytes, kind: Kind = Kind.NEWQDISC) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


@settings(derandomize=True)
@given(st.integers(1_000, 2**42), st.integers(64, 2**24), st.integers(1, 2**32 - 1))
def test_a_bucket_is_read_back_as_it_was_asked_beyond_32_bits_too(rate: int, burst_bytes: int, limit: int) -> None:
    """But for its burst, which the kernel tells as the time to fill it, in ticks of 64 ns that 32 bits count."""
    asked = TokenBucket(7, rate, burst_bytes, limit)
    (found,) = buckets(message(asked.message()))
    assert (found.index, found.rate_bytes_per_s, found.limit_bytes) == (7, rate, limit)
    if burst_bytes / rate < 2**32 * 64e-9:
        assert abs(found.burst_bytes - burst_bytes) <= 1 + rate * 32e-9


def test_a_bucket_that_the_kernel_told_of() -> None:
    """Linux 6.18, of a namespace with lo and a veth pair whose ends tc had shaped to 1 Mb/s and to 50 Gb/s."""
    answer = bytes.fromhex((DATA / "qdiscs.hex").read_text())
    fast, slow = buckets(answer)
    assert (slow.rate_bytes_per_s, slow.limit_bytes) == (125_000, 4_000_000)
    assert slow.burst_bytes == pytest.approx(18_028, abs=1)
    assert (fast.rate_bytes_per_s, fast.limit_bytes) == (6_250_000_000, 4_000_000)
    assert fast.burst_bytes == pytest.approx(1_000_000, abs=6.25e9 * 64e-9)
    assert list(bucket_counts(answer)) == [(fast.index, 180, 0, 0), (slow.index, 90, 0, 0)]


@settings(derandomize=True)
@given(st.dictionaries(st.sampled_from(Ifla), st.binary(max_size=40)))
def test_attributes_come_back_as_they_were_packed(asked: dict[Ifla, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, value) for kind, value in asked.items())) == asked


@settings(derandomize=True)
@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(0, 300))
def test_of_an_answer_that_is_cut_off_the_whole_messages_are_read(bodies: list[bytes], cut: int) -> None:
    packed = [message(body).ljust((16 + len(body) + 3) & ~3, b"\0") for body in bodies]
    whole, length = 0, 0
    for body, bytes_of_one in zip(bodies, packed, strict=True):
        whole += length + 16 + len(body) <= cut
        length += len(bytes_of_one)
    assert [body for *_, body in messages(b"".join(packed)[:cut])] == bodies[:whole]


def test_both_ends_of_a_link_are_in_its_request() -> None:
    near = LinkEnd(1000, "h1-eth0", 41, "02:00:00:00:00:01", 9000, 4, 1000)
    far = LinkEnd(1001, "leaf1-eth1", 42, None, 9000, 4, 1000)
    found = attributes(veth_pair(near, far).body, 16)
    assert found[Ifla.IFNAME] == b"h1-eth0\0"
    assert found[Ifla.ADDRESS] == bytes([2, 0, 0, 0, 0, 1])
    information = attributes(found[Ifla.LINKINFO])
    assert information[IflaInfo.KIND] == b"veth\0"
    peer = attributes(attributes(information[IflaInfo.DATA])[IflaInfo.PEER], 16)
    assert (peer[Ifla.IFNAME], peer[Ifla.NET_NS_PID]) == (b"leaf1-eth1\0", struct.pack("=I", 42))
    assert Ifla.ADDRESS not in peer, "the kernel chooses one"


def test_a_route_gives_connections_their_congestion_control() -> None:
    request = route("10.0.0.0/8", 5, via="10.0.255.254", metrics=route_metrics(1000, "dctcp"))
    metrics = attributes(attributes(request.body, 12)[Rta.METRICS])
    assert metrics[Rtax.CC_ALGO] == b"dctcp\0"
    assert metrics[Rtax.RTO_MIN] == struct.pack("=I", 1000)
    assert struct.unpack("=I", metrics[Rtax.LOCK])[0] == 1 << Rtax.RTO_MIN, "or the kernel does not heed it"
    assert Rtax.CC_ALGO not in attributes(route_metrics(1000))
