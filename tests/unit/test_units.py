"""Rates, sizes and times: what people write, what they mistype, and that nothing is lost on the way back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.spec.units import (
    format_rate_bps,
    format_size_bytes,
    format_time_s,
    parse_rate_bps,
    parse_share,
    parse_size_bytes,
    parse_time_s,
)

quickly = settings(max_examples=300, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_rate_bps, "20mbit", 20_000_000),
        (parse_rate_bps, "1gbit", 10**9),
        (parse_rate_bps, "2.5gbit", 2_500_000_000),
        (parse_rate_bps, "100kbit", 100_000),
        (parse_rate_bps, "7bit", 7),
        (parse_rate_bps, "10Gbps", 10**10),
        (parse_rate_bps, "10 Gb/s", 10**10),
        (parse_rate_bps, "2.5 Gbit/s", 2_500_000_000),
        (parse_rate_bps, "20 mbit", 20_000_000),
        (parse_rate_bps, "20Mbit", 20_000_000),
        (parse_rate_bps, "100kb/s", 100_000),
        (parse_size_bytes, "100kB", 100_000),
        (parse_size_bytes, "100KB", 100_000),
        (parse_size_bytes, "4 MiB", 4 * 1024 * 1024),
        (parse_time_s, "50µs", 50e-6),
        (parse_size_bytes, "4MB", 4_000_000),
        (parse_size_bytes, "4MiB", 4 * 1024 * 1024),
        (parse_size_bytes, "64KB", 64_000),
        (parse_size_bytes, "64KiB", 65_536),
        (parse_size_bytes, "0.5KiB", 512),
        (parse_size_bytes, "512B", 512),
        (parse_time_s, "10ms", 0.01),
        (parse_time_s, "2s", 2.0),
        (parse_time_s, "50us", 50e-6),
        (parse_time_s, "1.5s", 1.5),
    ],
)
def test_what_is_written_is_what_is_meant(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


WRONG_RATES = ["50mb", "8", "MBit", "20MBit", "-5mbit", "nan", "inf", "nanmbit", "", "1e3mbit", "20  mbit", "0mbit"]
WRONG_RATES += ["0.5bit", "2000gbit", "8MB", "10ms", "٣mbit", "20.mbit"]
WRONG_RATES += ["10gbps", "20mbps", "5bps", "1MB/s", "10GBps", "10Mib/s", "20\tmbit"]


@pytest.mark.parametrize("text", WRONG_RATES)
def test_a_wrong_rate_is_refused_in_one_sentence_that_says_what_is_right(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_rate_bps(text)
    message = str(refused.value)
    assert text.replace("\t", "\\t") in message
    assert "a rate such as 20mbit or 1gbit" in message or "at most 1000gbit" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (parse_rate_bps, "50mb", "no unit 'mb'"),
        (parse_rate_bps, "8", "unit is missing"),
        (parse_rate_bps, "20MBit", "20mbit is"),
        (parse_rate_bps, "20mbps", "may be bits or bytes"),
        (parse_rate_bps, "-5mbit", "negative"),
        (parse_rate_bps, "2000gbit", "too large"),
        (parse_rate_bps, "0mbit", "too small"),
        (parse_rate_bps, "0.5bit", "whole number of bits per second"),
        (parse_rate_bps, "8MB", "is a size, not a rate"),
        (parse_size_bytes, "50mbit", "is a rate, not a size; write a size such as 4MB"),
        (parse_size_bytes, "4mb", "4MB is"),
        (parse_size_bytes, "-4MB", "negative"),
        (parse_size_bytes, "0.3B", "whole number of bytes"),
        (parse_size_bytes, "5000GB", "at most 1000GB"),
        (parse_time_s, "10", "unit is missing; write a time such as 10ms or 2s"),
        (parse_time_s, "10m", "no unit 'm'"),
        (parse_time_s, "5mbit", "is a rate, not a time"),
    ],
)
def test_the_sentence_names_the_mistake(parse: Callable[[str], float], text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert said in str(refused.value)


@quickly
@given(st.integers(1, 10**12))
def test_rates_and_sizes_survive_writing_and_reading(value: int) -> None:
    assert parse_rate_bps(format_rate_bps(value)) == value
    assert parse_size_bytes(format_size_bytes(value)) == value


@quickly
@given(st.floats(1e-9, 86_400))
def test_times_survive_writing_and_reading(value: float) -> None:
    assert parse_time_s(format_time_s(value)) == value


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (format_rate_bps(20_000_000), "20mbit"),
        (format_rate_bps(2_500_000_000), "2.5gbit"),
        (format_size_bytes(4_000_000), "4MB"),
        (format_size_bytes(2**22), "4MiB"),
        (format_size_bytes(65_536), "64KiB"),
        (format_size_bytes(1), "1B"),
        (format_time_s(0.01), "10ms"),
        (format_time_s(10.0), "10s"),
        (format_time_s(5e-5), "50us"),
    ],
)
def test_the_shortest_way_is_written(written: str, text: str) -> None:
    assert written == text


@quickly
@given(st.text(max_size=12))
def test_whatever_is_typed_is_a_value_or_a_sentence(text: str) -> None:
    parsers: tuple[Callable[[str], float], ...] = (parse_rate_bps, parse_size_bytes, parse_time_s)
    for parse in parsers:
        try:
            assert parse(text) > 0
        except ValueError as refused:
            assert "; write a " in str(refused) or "is at most" in str(refused)


@pytest.mark.parametrize(
    ("text", "share"),
    [("5%", 0.05), ("5 %", 0.05), ("2.5%", 0.025), ("0.1", 0.1), (".1", 0.1), ("0", 0.0)],
)
def test_a_share_is_a_fraction_or_per_cent(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "five", "5 percent", "-1%", "100%", "5", "1", "nan", "1e-2"])
def test_what_is_no_share_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not a share.*; write 5% or 0\.05$"):
        parse_share(text)
