"""Spines of other rates and links that are broken from the start, on every data plane."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_faults import performed

UNEVEN = {
    "leaves": 2, "spines": 3, "hosts_per_leaf": 2, "host_rate": "20mbit", "fabric_rate": "20mbit",
    "spine_rates": {"spine1": "50%"}, "failed": ["leaf1-spine2"],
}  # fmt: skip
BY_WEIGHT = ["spray-weighted", "ethereal-weighted"]


@pytest.mark.parametrize("plane", ["ovs", "linux"])
def test_live_links_share_by_their_rates_and_a_dead_one_carries_nothing(tmp_path: Path, plane: str) -> None:
    """Bytes are in the proportion of rates, where a scheme knows them; theory says what it costs where it does not."""
    found = performed(
        tmp_path, plane, [], fabric={**UNEVEN, "dataplane": plane}, schemes=["ethereal", "subflow-4", *BY_WEIGHT],
        traffic=[{"collective": "permutation", "channels": 3, "size": "1MB"}],
    )  # fmt: skip
    for scheme, judged in found.items():
        links = judged.frames["links"].set_index("port")
        dead = links.loc[["leaf1-eth4", "spine2-eth1", "leaf2-eth4", "spine2-eth2"]]
        assert dead.tx_packets.sum() == 0, (scheme, "nothing goes where only one leaf can")
        assert links.rate_bps[["leaf1-eth3", "leaf1-eth4", "leaf1-eth5"]].tolist() == [10_000_000, 0, 20_000_000]
        assert judged.row["drops_packets"] == judged.row["destroyed_packets"] == 0
    assert found["ethereal"].row["congestion_ratio"] == pytest.approx(30 / 20, abs=0.03)
    for scheme in BY_WEIGHT:
        row = found[scheme].row
        assert row["congestion_ratio"] == pytest.approx(1, abs=0.03), scheme
        assert row["cct_over_bound"] < 1.1, scheme
