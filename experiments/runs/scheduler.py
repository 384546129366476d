"""The one place that speaks to Dask: a scheduler and its workers, and the way by which these answer a command."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import pickle
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError
from emulator.inputs import InputError, read_input
from experiments.runs.worker import Line, Message
from experiments.spec.messages import SpecError

RESOURCE = "fabric"
"""What Dask counts on a worker that emulates: it has one, and every task takes it."""

_CONNECT_S = 10.0
_CLOSE_S = 2.0
_SEND_TIMEOUT_S = 300.0  # for a command that is slow to write, or whose queue is full
_MOST_WAITING = 64  # messages in the scheduler's memory that a command has not taken yet
_MOST_BYTES = 1024 * 1024  # of a scheduler's file
_EXAMPLE = "tls://head-node:8786, or the file that `dask scheduler --scheduler-file` writes"


@dataclass(frozen=True)
class Address:
    """Where a scheduler is met: a URL such as tls://head-node:8786."""

    url: str

    @classmethod
    def of(cls, text: str) -> Address:
        """Return what `text`, an address or a scheduler's file, names.

        Raises SpecError for what is none, and for one off this machine that is not encrypted.
        """
        url = text if "://" in text else _of_file(Path(text))
        if not re.fullmatch(r"(tls|tcp)://.+:[0-9]{1,5}", url):
            raise SpecError(f"--on {text}: is no scheduler's address; name one, such as {_EXAMPLE}")
        if not private(url):
            raise SpecError(
                f"--on {text}: whoever can reach the workers of a cluster is root there, and {url} is neither "
                "encrypted nor on this machine alone: start scheduler and workers with TLS, and write tls://"
            )
        return cls(url)

    def __str__(self) -> str:
        return self.url


def _of_file(path: Path) -> str:
    try:
        content = json.loads(read_input(path, _MOST_BYTES))
        return str(content["address"])
    except InputError as error:
        raise SpecError(f"--on {path}: {error}; name a scheduler, such as {_EXAMPLE}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpecError(f"--on {path}: is no scheduler's file; name a scheduler, such as {_EXAMPLE}") from error


def private(url: str) -> bool:
    """Whether nobody else can listen or speak at `url`: it is encrypted, or on this machine alone."""
    kind, _, rest = url.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if kind == "tls" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def emulating(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the addresses of those `workers`, as Dask describes them, that emulate, by what no other has ever had.

    Raises SpecError for one that is neither encrypted nor on loopback.
    """
    found = {}
    for address, about in workers.items():
        if about.get("resources", {}).get(RESOURCE):
            if not private(address):
                raise SpecError(
                    f"the worker at {address} is not encrypted, and whoever can reach it is root there: use TLS"
                )
            found[f"{address} {about['local_directory']}"] = address  # one that is started again may get the same port
    return found


@dataclass(frozen=True)
class Post:
    """Leads from a task on a worker to the command that submitted it: a queue of Dask's, by its name."""

    name: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Line]:
        """Give the running task its end of it; called on a worker."""
        from distributed import Queue, get_client, get_worker

        worker = get_worker()
        key = worker.get_current_task()
        queue = Queue(self.name, client=get_client())

        def send(message: Message) -> None:
            queue.put(pickle.dumps(message, protocol=5), timeout=_SEND_TIMEOUT_S)

        def wanted() -> bool:
            known = worker.state.tasks.get(key)  # Dask cannot interrupt a task: it only marks it as cancelled
            return known is not None and known.state == "executing"

        try:
            yield Line(send, wanted)
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone, of which there are many signs
                queue.close()


class Scheduler:
    """A connection to a scheduler, until `close`. Raises SpecError or EmulatorError where it is none to be trusted.

    All methods but `cancel` and `close` raise EmulatorError once it is lost.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = _connected(address)
        try:
            # It takes workers at its own address, which may be another than the one it was reached by.
            contact = str(self._asked(self._client.scheduler_info)["address"])
            if not private(contact):
                raise SpecError(
                    f"the scheduler at {address} takes workers at {contact}, which is not encrypted: whoever can reach "
                    "it is root on them; start it with TLS, or with --host 127.0.0.1"
                )
            self.post = Post(f"spraylab-{uuid.uuid4().hex}")
            self._queue = self._asked(self._make_queue)
        except BaseException:
            self.close()
            raise

    def _make_queue(self) -> Any:
        from distributed import Queue

        return Queue(self.post.name, client=self._client, maxsize=_MOST_WAITING)

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            if self._client.status != "running":
                raise OSError("not connected any more")
            return ask()
        except Exception as error:  # the library raises what the connection did
            raise EmulatorError(f"the scheduler at {self._address} is lost: {_said(error)}") from error

    def workers(self) -> dict[str, str]:
        """Return the addresses of all workers that emulate, as `emulating` does."""
        return emulating(self._asked(self._client.scheduler_info)["workers"])

    def submit(self, address: str, function: Callable[[Any], Any], argument: object) -> Any:
        """Return the future of `function(argument)` on the worker at `address`, and on no other."""
        return self._asked(
            lambda: self._client.submit(
                function, argument, workers=[address], allow_other_workers=False, resources={RESOURCE: 1},
                pure=False, retries=0,
            )
        )  # fmt: skip

    def received(self) -> list[Message]:
        """Return what workers have sent since, without waiting."""
        sent = self._asked(lambda: self._queue.get(batch=True))
        return [pickle.loads(content) for content in sent]  # from workers who get code from here likewise

    def cancel(self, futures: Sequence[Any]) -> None:
        """Want `futures` no more. Raises nothing."""
        with contextlib.suppress(Exception):
            self._client.cancel(list(futures), force=True)

    def close(self) -> None:
        """Leave. What is under way for this command is wanted no more. Raises nothing."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=_CLOSE_S)


def _connected(address: Address) -> Any:
    """A client of the scheduler. Its certificates are those that Dask's configuration names."""
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError as error:
        raise SpecError("--on needs Dask, which is not installed: ./spraylab --setup cluster installs it") from error

    for name in ("distributed", "tornado"):  # what they have to say is said here in sentences
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    security = Security()
    if address.url.startswith("tls://") and security.get_connection_args("client").get("ssl_context") is None:
        raise SpecError(
            f"--on {address}: Dask's configuration names no certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "and CERT and KEY under DASK_DISTRIBUTED__COMM__TLS__CLIENT__"
        )
    _knock(address)
    try:
        return Client(address.url, timeout=_CONNECT_S, security=security, set_as_default=False, name="spraylab")
    except Exception as error:  # the library raises what the connection did
        raise EmulatorError(f"the scheduler at {address} does not answer as it should: {_said(error)}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _knock(address: Address) -> None:
    """Raise EmulatorError where nobody listens: sooner, and in clearer words, than the library would."""
    host, _, port = address.url.partition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise EmulatorError(f"the scheduler at {address} is not to be reached: {said}") from error
