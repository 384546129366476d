"""How connections that meet share links: by max-min fairness, and by what equal windows over plain queues come to.

An ideal transport shares max-min fairly: no connection can have more without one that has no more than it having less.
TCP whose windows are equal, over queues that are first in, first out, gives a connection the less the more queues it
waits in: proportional fairness. Where every connection has one bottleneck the two are the same; where some have two,
they are not, and a real network is in between. Both keep within every link's rate and leave no connection without a
full link.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from experiments.theory.loads import Floats, Routes, total

ROUNDING = 1e-9
_CLOSE = 2e-3  # how near to full the links that hold somebody are to be, and how far above a link may first be
_MOST_ROUNDS = 400
_STEP = 0.5
_LEAST_LOAD = 1e-3  # of a link, so that the price of an idle one falls without ever being lost


class Sharing(Protocol):
    """Rates in bits/s of connections that cross links of these rates in bits/s."""

    def __call__(self, crossed: Routes, capacities_bps: Floats) -> Floats: ...


def max_min_rates(crossed: Routes, capacities_bps: Floats) -> Floats:
    """Return the max-min fair rate in bits/s of every subflow; infinite for those that cross no link.

    A subflow of rate x takes weight * x of each link it crosses. In every round all links are settled whose subflows
    could not get more elsewhere, rather than the slowest link alone: the result is the same, in far fewer rounds.
    Progressive filling (D. Bertsekas, R. Gallager, "Data Networks", 1992, section 6.5.2). SciPy has no solver for it: a
    linear program gives only the lowest rate and who is held to it, so its `linprog` would run once for every distinct
    rate at every event. The tests do that, to check the few lines here.
    """
    rates = np.zeros(len(crossed.links))
    free = capacities_bps
    still = np.arange(len(rates))
    while len(still):
        links, weights = crossed.links[still], crossed.weights[still]
        load = total(links, weights, len(free))
        share = np.divide(free, load, out=np.full_like(free, np.inf), where=load > 0)
        offers = share[links]
        offer = offers.min(axis=1)
        held_elsewhere = offer[:, None] < offers * (1 - ROUNDING)
        unsettled = total(links, held_elsewhere.astype(float), len(free)) > 0
        done = ~unsettled[links].all(axis=1)
        rates[still[done]] = offer[done]
        taken = np.multiply(weights, offer[:, None], out=np.zeros_like(weights), where=weights > 0)
        free = np.maximum(free - total(links[done], taken[done], len(free)), 0.0)
        still = still[~done]
    return rates


class ProportionalRates:
    """Proportionally fair rates in bits/s, to within a few thousandths; infinite for those that cross no link.

    They maximise the sum of the logarithms of all rates (F. Kelly, "Charging and rate control for elastic traffic",
    1997), to which equal windows lead (J. Mo, J. Walrand, "Fair end-to-end window-based congestion control", 2000). A
    link's price is then the time that a packet waits for it, and a rate is one over the sum of a path's prices. Prices
    rise where more is sent than a link carries and fall where less is; they are kept from one call to the next, for
    little has changed in between.
    """

    def __init__(self) -> None:
        self._prices: Floats = np.zeros(0)

    def __call__(self, crossed: Routes, capacities_bps: Floats) -> Floats:
        links, weights = crossed.links, crossed.weights
        wired = (weights > 0).any(axis=1)
        finite = np.isfinite(capacities_bps)
        per_bit = np.divide(1.0, capacities_bps, out=np.zeros_like(capacities_bps), where=finite)
        prices = np.maximum(self._prices, 1e-6 * per_bit) if len(self._prices) else per_bit.copy()
        rates, loads = np.full(len(links), np.inf), np.zeros(len(per_bit))
        for _ in range(_MOST_ROUNDS):
            rates[wired] = 1 / (prices[links[wired]] * weights[wired]).sum(axis=1)
            loads = total(links[wired], weights[wired] * rates[wired][:, None], len(per_bit)) * per_bit
            holding = prices > 1e-3 * per_bit
            if loads.max() < 1 + _CLOSE and (loads[holding & (loads > 0)] > 1 - _CLOSE).all():
                break
            prices *= np.maximum(loads, _LEAST_LOAD) ** _STEP
        self._prices = prices
        crossed_loads = np.where(weights > 0, loads[links], 0.0).max(axis=1, initial=1.0)
        shared: Floats = rates / crossed_loads
        return shared
