"""A cluster without Dask: its scheduler is played here, and its workers are threads of this process."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from experiments.runs.cluster import Cluster
from experiments.runs.scheduler import Address
from experiments.runs.worker import Line, Message, Needs

FIRST, SECOND = "tls://192.0.2.1:9001", "tls://192.0.2.2:9002"


NEEDS = Needs({}, ("cubic",))


class Played:
    """A scheduler whose workers are threads of this process: one a worker, as in real ones that emulate."""

    def __init__(self, *addresses: str) -> None:
        self.there = {address: ThreadPoolExecutor(1) for address in addresses}
        self.sent: list[bytes] = []
        self.unwanted: set[str] = set()
        self.begun = Counter[str]()
        self.post = self
        self.mine = threading.local()

    def __call__(self, _address: Address) -> Played:
        return self

    def workers(self) -> dict[str, str]:
        return {f"{address} folder": address for address in self.there}

    def submit(self, address: str, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        answer.attempt = getattr(argument, "attempt", "")  # type: ignore[attr-defined]

        def work() -> None:
            self.mine.address, self.mine.attempt = address, answer.attempt  # type: ignore[attr-defined]
            self.begun[address] += 1
            try:
                told = partial(answer.set_result, function(argument))
            except Exception as error:
                told = partial(answer.set_exception, error)
            if address in self.there and not answer.cancelled():  # of a lost one, nobody hears any more
                told()

        self.there[address].submit(work)
        return answer

    @contextmanager
    def open(self) -> Iterator[Line]:
        address, attempt = self.mine.address, self.mine.attempt
        yield Line(
            lambda message: self.sent.append(pickle.dumps(message)),
            lambda: address in self.there and attempt not in self.unwanted,
        )

    def received(self) -> list[Message]:
        taken, self.sent = self.sent, []
        return [pickle.loads(each) for each in taken]

    def cancel(self, futures: Sequence[Any]) -> None:
        for future in futures:
            self.unwanted.add(future.attempt)
            future.cancel()

    def close(self) -> None:
        for worker in self.there.values():
            worker.shutdown(wait=False)

    def lose(self, address: str) -> None:
        """A machine is gone, from one moment to the next."""
        del self.there[address]


def cluster(local: Played, needs: Needs = NEEDS) -> Cluster:
    return Cluster(Address.of("tls://head:8786"), needs, local)  # type: ignore[arg-type]
