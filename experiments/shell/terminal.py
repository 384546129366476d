"""The user's terminal at the fabric's command line: `spraylab shell`, seen from outside the sandbox."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import tempfile
import termios
import threading
import tty
from collections.abc import Iterator
from dataclasses import replace

import click

from emulator.sandbox import Sandbox
from experiments.judge.evidence import Built
from experiments.machine.calibration import userspace_limit_bps
from experiments.spec.experiment import Experiment
from experiments.spec.messages import SpecError
from traffic.schemes import names_for_programs, scheme_of

_READ_BYTES = 1 << 16
_STOP_POLL_S = 0.1


def converse(experiment: Experiment, scheme: str) -> None:
    """Build the fabric and let the user at it, or perform the lines of a pipe. Raises EmulatorError and SpecError."""
    check_shell_scheme(scheme)
    lines = None if sys.stdin.isatty() else sys.stdin.read().splitlines()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        ours, theirs = os.openpty() if lines is None else (-1, os.dup(sys.stdout.fileno()))
        with Sandbox(log, [theirs]) as sandbox:
            from experiments.shell.inside import perform_shell  # imports Mininet

            topology, transport = experiment.fabric.topology(), experiment.tcp()
            order = transport.order(topology, experiment.fabric.dataplane, userspace_limit_bps(topology.hosts))
            order = replace(order, congestion_control=transport.congestion_control)
            events = sandbox.stream(
                perform_shell, order, experiment.seeds[0], scheme, experiment.network_reaction(), dict(os.environ),
                theirs, lines,
            )  # fmt: skip
            for event in events:
                if isinstance(event, Built) and lines is None:
                    click.echo(f"fabric up; data plane {event.dataplane}: {event.why}; {scheme}; help lists commands")
                    stack.enter_context(_proxied(ours))


def check_shell_scheme(scheme: str) -> None:
    """Raises SpecError."""
    try:
        programs_have_it = scheme_of(scheme).for_programs
    except ValueError as error:
        raise SpecError(f"--scheme: {error}") from error
    if not programs_have_it:
        raise SpecError(
            f"--scheme: {scheme} cannot apply to unmodified programs, which open their own connections; "
            f"write {names_for_programs()}"
        )


@contextlib.contextmanager
def _proxied(ours: int) -> Iterator[None]:
    """Meanwhile, what is typed goes to the pseudo-terminal `ours`, Ctrl-C and all, and what comes from it is shown."""
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(stdin)
    done = threading.Event()
    copier = threading.Thread(target=_copy, args=(stdin, stdout, ours, done), daemon=True)
    _resize(stdin, ours)
    resized = signal.signal(signal.SIGWINCH, lambda *_: _resize(stdin, ours))
    try:
        tty.setraw(stdin)
        copier.start()
        yield
    finally:
        done.set()
        copier.join()
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, resized)


def _copy(stdin: int, stdout: int, ours: int, done: threading.Event) -> None:
    """Until `done`, and then what is still to be shown."""
    watched = [stdin, ours]
    while True:
        ready = select.select(watched, [], [], 0 if done.is_set() else _STOP_POLL_S)[0]
        if done.is_set() and ours not in ready:
            return
        for source in ready:
            try:
                data = os.read(source, _READ_BYTES)
            except OSError:  # of a pseudo-terminal that nobody has open any more
                data = b""
            if not data:
                watched.remove(source)
                continue
            with contextlib.suppress(OSError):  # the terminal is gone, and we are told so by SIGHUP
                os.write(ours if source == stdin else stdout, data)


def _resize(stdin: int, ours: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(ours, termios.TIOCSWINSZ, fcntl.ioctl(stdin, termios.TIOCGWINSZ, bytes(8)))
