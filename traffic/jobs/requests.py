"""Requests to a pool of servers: a few KB up, time to serve, a few KB down. They are no load, and feel one.

Each of `at_once` callers, dealt out to clients, sends its next request when it has the answer to the one before, and
asks the servers in turn. A caller has connections of its own, so none waits for another's answer.
"""

from __future__ import annotations

from traffic.schedule import NO_ITERATION, Compute, Flow, Request, Schedule


def requests(
    count: int, *, clients: int, pool: int, at_once: int, up_bytes: int, down_bytes: int, serve_s: float
) -> Schedule:
    """Return `count` requests of `clients` ranks to the `pool` ranks that follow them."""
    flows: list[Flow] = []
    computes: list[Compute] = []
    asked: list[Request] = []
    for number in range(count):
        caller = number % at_once
        client, server = caller % clients, clients + number % pool
        sent, served, answered = 2 * number, 2 * count + number, 2 * number + 1
        turn = (2 * (number - at_once) + 1,) if number >= at_once else ()
        step = 2 * (number // at_once)
        flows.append(Flow(sent, client, server, up_bytes, step, caller, turn))
        flows.append(Flow(answered, server, client, down_bytes, step + 1, caller, (served,)))
        computes.append(Compute(served, server, serve_s, (sent,), "serve", NO_ITERATION))
        asked.append(Request(sent, served, answered))
    size = max(up_bytes * count // clients, down_bytes * count // pool)
    return Schedule(
        "requests", "pool", clients + pool, at_once, size, flows, computes=tuple(computes), requests=tuple(asked)
    )
