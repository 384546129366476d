"""The one place that speaks to Dask for a command: a scheduler, its workers, and a queue by which these answer."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.errors import EmulatorError
from emulator.inputs import InputError, read_input
from experiments.runs.messages import Joined
from experiments.runs.worker import RESOURCE, Greeting
from experiments.spec.messages import SpecError

_CONNECT_S = 10.0
_MOST_BYTES = 1024 * 1024  # of a scheduler's file
_CLOSE_S = 2.0
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
        found = re.fullmatch(r"(tls|tcp|inproc)://(.+)", url)
        if not found or (found[1] != "inproc" and not re.search(r":[0-9]{1,5}$", url)):
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
    if kind in ("tls", "inproc"):
        return True
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, eq=False)
class Machine:
    """A worker that performs runs, and what is to be known of where it is."""

    address: str
    name: str
    about: Mapping[str, Any]
    warnings: Sequence[str]

    @classmethod
    def of(cls, address: str, greeting: Greeting, taken: Sequence[str]) -> Machine:
        """Return the one at `address`, named as its host, and by its port too where that is `taken`."""
        name, warnings = greeting.node, list(greeting.warnings)
        if name in taken:
            warnings.append(f"two workers are on {name}: the runs of one disturb those of the other")
            name = f"{name}-{re.split('[:/]', address)[-1]}"
        return cls(address, name, greeting.about, warnings)

    def joined(self) -> Joined:
        return Joined(self.name, self.about, self.warnings)


class Queue:
    """What workers send, in order."""

    def __init__(self, queue: Any, lost: Callable[[Exception], EmulatorError]) -> None:
        self._queue, self._lost = queue, lost

    def get_all(self) -> list[bytes]:
        """Return what has come since, without waiting. Raises EmulatorError."""
        try:
            return list(self._queue.get(batch=True))
        except Exception as error:  # the library raises what the connection did
            raise self._lost(error) from error


class Scheduler:
    """A connection to a scheduler. All methods raise EmulatorError once it is lost."""

    def __init__(self, address: Address) -> None:
        try:
            import distributed
        except ImportError as error:
            raise SpecError(
                "--on needs the Python package distributed: `./spraylab --setup cluster` installs it"
            ) from error
        for name in ("distributed", "tornado"):  # what they have to say is said here in sentences
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._address = address
        self._distributed = distributed
        self._client = _connected(address)
        try:
            contact = str(self._asked(lambda: self._client.scheduler_info())["address"])
            if not private(contact):
                raise SpecError(
                    f"the scheduler at {address} takes workers at {contact}, which is not encrypted: whoever can reach "
                    "it is root on them; start it with TLS, or with --host 127.0.0.1"
                )
        except BaseException:
            self.close()
            raise

    def _asked(self, ask: Callable[[], Any]) -> Any:
        try:
            if self._client.status != "running":
                raise OSError("not connected any more")
            return ask()
        except Exception as error:  # the library raises what the connection did
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> EmulatorError:
        said = " ".join(str(error).split()) or type(error).__name__
        return EmulatorError(f"the scheduler at {self._address} is lost: {said}")

    def workers(self) -> dict[str, str]:
        """Return the addresses of all workers that emulate, by what no other worker will ever be called."""
        found = self._asked(self._client.scheduler_info)["workers"]
        emulating = {at: about for at, about in found.items() if about.get("resources", {}).get(RESOURCE)}
        if bare := next((at for at in emulating if not private(at)), None):
            raise SpecError(f"the worker at {bare} is not encrypted, and whoever can reach it is root there: use TLS")
        return {f"{address} {about['local_directory']}": address for address, about in emulating.items()}

    def submit(self, worker: str, function: Callable[..., Any], argument: object) -> Any:
        """Return the future of `function(argument)` on the worker at that address, and on no other."""
        return self._asked(
            lambda: self._client.submit(
                function, argument, workers=[worker], allow_other_workers=False, resources={RESOURCE: 1},
                pure=False, retries=0,
            )
        )  # fmt: skip

    def cancel(self, futures: Sequence[Any]) -> None:
        """Want `futures` no more. Raises nothing."""
        with contextlib.suppress(Exception):
            self._client.cancel(list(futures), force=True)

    @contextlib.contextmanager
    def queue(self, name: str, most: int) -> Iterator[Queue]:
        """Give a queue that workers find by its name; they wait where `most` messages are in it."""
        queue = self._asked(lambda: self._distributed.Queue(name, client=self._client, maxsize=most))
        try:
            yield Queue(queue, self._gone)
        finally:
            with contextlib.suppress(Exception):
                queue.close()

    def close(self) -> None:
        """Leave. What is under way for this command is wanted no more."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=_CLOSE_S)


def _connected(address: Address) -> Any:
    """A client of the scheduler. Its certificates are those that Dask's configuration names."""
    from distributed import Client
    from distributed.security import Security

    security = Security()
    if address.url.startswith("tls://") and security.get_connection_args("client").get("ssl_context") is None:
        raise SpecError(
            f"--on {address}: Dask's configuration names no certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "and CERT and KEY under DASK_DISTRIBUTED__COMM__TLS__CLIENT__"
        )
    if not address.url.startswith("inproc://"):
        _knock(address)
    try:
        return Client(
            address.url, timeout=_CONNECT_S, security=security, set_as_default=False, name="spraylab",
            connection_limit=16,
        )  # fmt: skip
    except Exception as error:  # the library raises what the connection did
        said = " ".join(str(error).split()) or type(error).__name__
        raise EmulatorError(f"the scheduler at {address} does not answer as it should: {said}") from error


def _knock(address: Address) -> None:
    """Raise EmulatorError where nobody listens: sooner, and in clearer words, than the library would."""
    host, _, port = address.url.partition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise EmulatorError(f"the scheduler at {address} is not to be reached: {said}") from error
