"""What the kernel refuses is named. (Nothing here exists, so nothing can be changed, whoever runs it.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.errors import EmulatorError
from emulator.netlink import Netlink, address, neighbour, token_bucket, token_buckets

NO_SUCH_INTERFACE = 2_000_000_000


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
    assert all(index > 0 for index, *_ in token_buckets(netlink))


class Echo(Netlink):
    """As if the kernel listed one queue, as it was asked for."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        yield self._body


@given(st.integers(1, 2**40))
def test_a_rate_is_read_back_as_it_was_asked_beyond_32_bits_too(rate_bytes_per_s: int) -> None:
    asked = token_bucket(7, 0x10000, rate_bytes_per_s, 18_028, 4_000_000)
    ((index, rate, _, limit),) = token_buckets(Echo(asked.body))
    assert (index, rate, limit) == (7, rate_bytes_per_s, 4_000_000)
