"""The verdict follows from the numbers that can be trusted, and there is none where they do not allow one."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.commands.performing import refusal
from experiments.results.folder import ResultsError
from experiments.results.sentences import DEALT, as_json, caveats, lines, sentence
from experiments.results.verdict import Asked, Outcome, Verdict, decide, of_results

Planted = Mapping[tuple[str, str], Sequence[float]]


def planted(ratios: Planted, failed: Planted | None = None) -> pd.DataFrame:
    """Runs with CCT / bound by (traffic, scheme), a seed each; `failed` ones, of the seeds after, cannot be trusted."""
    rows: list[dict[str, Any]] = []
    for traffic, scheme in {**ratios, **(failed or {})}:
        good, bad = ratios.get((traffic, scheme), ()), (failed or {}).get((traffic, scheme), ())
        for seed, value in enumerate([*good, *bad], start=1):
            rows.append(
                {
                    "run_id": f"{len(rows) + 1:03d}-{scheme}-s{seed}",
                    "traffic": traffic,
                    "scheme": scheme,
                    "seed": seed,
                    "cct_over_bound": value,
                    "fidelity": "pass" if seed <= len(good) else "fail",
                }
            )
    return pd.DataFrame(rows)


def on(traffic: str, **ratios: Sequence[float]) -> dict[tuple[str, str], Sequence[float]]:
    return {(traffic, scheme.replace("_", "-")): values for scheme, values in ratios.items()}


ECMP_ENOUGH = on("ring", ecmp=[1.02, 1.03, 1.04], spray=[1.0, 1.0, 1.0], ethereal=[1.0, 1.01, 1.01])
SPLITTING = on("perm", ecmp=[1.5, 1.9, 2.3], spray=[1.0, 1.0, 1.0], ethereal=[1.01, 1.02, 1.02])
SPRAYING = on("alltoall", ecmp=[1.5, 1.9, 2.3], spray=[1.0, 1.0, 1.0], ethereal=[1.2, 1.3, 1.4])


# The three outcomes


@pytest.mark.parametrize(
    ("ratios", "outcome", "said"),
    [
        (ECMP_ENOUGH, Outcome.ECMP, "Plain ECMP is enough on this fabric: within 5 % of spray on ring (1.03 x"),
        (
            SPLITTING,
            Outcome.SPLITTING,
            "No need for packet spraying on this fabric: a single path with minimal splitting",
        ),
        (SPRAYING, Outcome.SPRAYING, "Packet spraying pays on this fabric: on alltoall, a single path"),
    ],
)
def test_one_collective_has_one_of_three_outcomes(ratios: Planted, outcome: Outcome, said: str) -> None:
    verdict = decide(planted(ratios))
    assert verdict.outcome is outcome
    assert sentence(verdict).startswith(said)
    assert "9 of 9 runs trusted; 3 seeds" in sentence(verdict)
    assert not verdict.straddles and not verdict.provisional


def test_fabric_needs_what_its_most_demanding_collective_needs() -> None:
    splitting = decide(planted({**ECMP_ENOUGH, **SPLITTING}))
    assert splitting.outcome is Outcome.SPLITTING
    assert "on every collective, at worst 1.02 x" in sentence(splitting) and "ECMP is not: 1.90 x" in sentence(
        splitting
    )
    spraying = decide(planted({**ECMP_ENOUGH, **SPLITTING, **SPRAYING}))
    assert spraying.outcome is Outcome.SPRAYING
    assert [line.outcome for line in spraying.lines] == list(Outcome)
    assert (
        "on alltoall, a single path with minimal splitting (ethereal) took 1.30 x (1.20 to 1.40 by seed)"
        in sentence(spraying)
    )


@pytest.mark.parametrize(("ethereal", "outcome"), [(1.05, Outcome.SPLITTING), (1.0501, Outcome.SPRAYING)])
def test_exactly_the_threshold_is_within_it(ethereal: float, outcome: Outcome) -> None:
    for best in (1.0, 1.1, 3.3):
        ratios = on("perm", spray=[best] * 3, ethereal=[best * ethereal] * 3)
        assert decide(planted(ratios)).outcome is outcome


def test_threshold_is_the_askers() -> None:
    ratios = on("perm", spray=[1.0] * 3, ethereal=[1.08] * 3)
    assert decide(planted(ratios)).outcome is Outcome.SPRAYING
    assert decide(planted(ratios), within=0.1).outcome is Outcome.SPLITTING
    assert "within 10 % of spray" in sentence(decide(planted(ratios), within=0.1))


def test_random_spraying_stands_in_and_is_named() -> None:
    ratios = on("perm", spray_random=[1.0] * 3, ethereal=[1.01] * 3, ecmp=[2.0] * 3)
    verdict = decide(planted(ratios))
    assert verdict.baseline == "spray-random"
    assert "within 5 % of spray-random" in sentence(verdict) and "time of spray-random" in lines(verdict)[0]


def test_a_program_is_dealt_round_robin() -> None:
    runs = planted(SPLITTING).assign(loaded_s=lambda runs: runs.cct_over_bound)
    asked = replace(Asked.of(runs), programs=True)
    assert DEALT in sentence(decide(runs, asked=asked))


# What it takes


def test_a_fifth_of_the_runs_is_no_verdict() -> None:
    """Seven trusted runs of thirty say nothing, however well they look."""
    good = {("perm", "spray"): [1.0] * 3, ("perm", "ethereal"): [1.0] * 3, ("perm", "ecmp"): [1.0]}
    bad = {("perm", "ecmp"): [1.0] * 9, ("perm", "spray"): [1.0] * 7, ("perm", "ethereal"): [1.0] * 7}
    verdict = decide(planted(good, bad))
    assert verdict.outcome is None
    assert sentence(verdict) == "No verdict: 7 of 30 runs can be trusted (fidelity), two thirds are needed."


@pytest.mark.parametrize(("untrusted", "has_verdict"), [(3, True), (4, False)])
def test_two_thirds_exactly_will_do(untrusted: int, has_verdict: bool) -> None:
    """Of nine runs six; and runs that have no row count among those asked for."""
    places = [("perm", "ecmp"), ("perm", "spray"), ("perm", "ethereal"), ("perm", "ecmp")]
    lost = places[:untrusted]
    good = {key: values[: 3 - lost.count(key)] for key, values in SPLITTING.items()}
    asked = Asked(("ecmp", "spray", "ethereal"), (1, 2, 3), 9, 1)
    failed = decide(planted(good, {key: [1.0] * lost.count(key) for key in good}))
    unfinished = decide(planted(good), asked=asked)
    assert [verdict.quorum for verdict in (failed, unfinished)] == [has_verdict] * 2
    assert [verdict.outcome is not None for verdict in (failed, unfinished)] == [has_verdict] * 2


def test_collective_without_two_seeds_of_each_is_left_out_and_named() -> None:
    thin = {**on("alltoall", ecmp=[1.0] * 3, spray=[1.0] * 3, ethereal=[1.9])}
    verdict = decide(planted({**SPLITTING, **thin}, on("alltoall", ethereal=[1.9] * 2)))
    assert verdict.outcome is Outcome.SPLITTING
    lacking = "1 of 3 seeds of ethereal can be trusted, two are needed"
    assert f"no verdict on alltoall: {lacking}" in sentence(verdict) and "on 1 of 2 collectives" in sentence(verdict)
    assert lines(verdict)[1] == f"No verdict on alltoall: {lacking}."
    assert "2 runs left out: fidelity failed" in caveats(verdict)


def test_a_collective_nobody_has_seen_is_counted() -> None:
    verdict = decide(planted(SPLITTING), asked=Asked(("ecmp", "spray", "ethereal"), (1, 2, 3), 12, 2))
    assert verdict.outcome is Outcome.SPLITTING
    assert "nothing is known of 1 collective more" in sentence(verdict)
    assert "3 runs without a result" in sentence(verdict)


def test_nothing_trusted_or_finished_is_no_verdict() -> None:
    assert sentence(decide(planted({}, SPLITTING))).startswith("No verdict: none of 9 runs can be trusted")
    asked = Asked(("spray", "ethereal"), (1,), 2, 1)
    assert sentence(decide(pd.DataFrame(), asked=asked)) == "No verdict: no run has finished."


@pytest.mark.parametrize(
    ("schemes", "lacked"),
    [
        (["ecmp"], "ethereal and spray"),
        (["ecmp", "spray"], "ethereal"),
        (["ecmp", "ethereal"], "spray"),
        (["subflow-4"], "ethereal and spray"),
    ],
)
def test_schemes_that_compare_nothing_have_no_verdict_but_what_is_missing(schemes: list[str], lacked: str) -> None:
    verdict = decide(planted({("perm", scheme): [1.0] * 3 for scheme in schemes}))
    assert verdict.outcome is None and not lines(verdict)
    needed = "No verdict: whether spraying is needed takes ethereal and spray (or spray-random or switch-spray), "
    assert sentence(verdict).startswith(needed) and sentence(verdict).endswith(f" lack {lacked}.")


def test_without_ecmp_it_is_said() -> None:
    verdict = decide(planted(on("perm", spray=[1.0] * 3, ethereal=[1.01] * 3)))
    assert verdict.outcome is Outcome.SPLITTING and "ECMP was not run" in sentence(verdict)


# How sure it is


def test_one_seed_is_provisional() -> None:
    verdict = decide(planted(on("perm", ecmp=[2.0], spray=[1.0], ethereal=[1.0])))
    assert verdict.outcome is Outcome.SPLITTING and verdict.provisional
    assert "provisional: one seed, no spread known" in sentence(verdict) and "by seed" not in sentence(verdict)


def test_seeds_on_both_sides_are_too_close_to_call() -> None:
    verdict = decide(planted(on("perm", spray=[1.0] * 3, ethereal=[1.01, 1.04, 1.12])))
    assert verdict.outcome is Outcome.SPLITTING and verdict.straddles
    assert sentence(verdict).startswith("Too close to call, as seeds lie on both sides")
    assert lines(verdict)[0].startswith(
        'perm: seeds disagree, from "splitting is enough" to "spraying pays"; by the medians, splitting is enough'
    )


def test_another_collective_that_needs_more_settles_what_straddles() -> None:
    close = on("perm", ecmp=[1.5] * 3, spray=[1.0] * 3, ethereal=[1.01, 1.04, 1.12])
    verdict = decide(planted({**close, **SPRAYING}))
    assert verdict.outcome is Outcome.SPRAYING and not verdict.straddles
    assert [line.straddles for line in verdict.lines] == [True, False]


def test_number_nobody_can_explain_is_named() -> None:
    runs = planted(SPLITTING)
    runs["emulated_over_predicted"], runs["explained"] = 1.0, "yes"
    assert "explain" not in sentence(decide(runs))
    runs.loc[runs.run_id.isin(["004-spray-s1", "007-ethereal-s1"]), "explained"] = "no"
    runs.loc[runs.run_id == "004-spray-s1", "emulated_over_predicted"] = 1.31
    verdict = decide(runs)
    assert verdict.outcome is Outcome.SPLITTING
    assert "rests on a number nobody can explain: perm under spray took 1.31 x its prediction, and 1 more" in sentence(
        verdict
    )
    assert [run.run_id for run in verdict.unexplained] == ["004-spray-s1", "007-ethereal-s1"], "the worst first"


def test_what_was_not_predicted_or_not_trusted_needs_no_explanation() -> None:
    runs = planted(SPLITTING, on("perm", spray=[9.0]))
    runs["emulated_over_predicted"], runs["explained"] = float("nan"), ""
    runs.loc[runs.fidelity == "fail", ["emulated_over_predicted", "explained"]] = [9.0, "no"]
    assert not decide(runs).unexplained


# Properties

times = st.lists(st.floats(1.0, 3.0), min_size=2, max_size=4)
collectives = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(times, times, times), min_size=1)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def of_collectives(found: Mapping[str, tuple[Sequence[float], ...]]) -> pd.DataFrame:
    schemes = ("ecmp", "spray", "ethereal")
    return planted(
        {(name, scheme): each[place] for name, each in found.items() for place, scheme in enumerate(schemes)}
    )


@quick
@given(collectives, st.integers(0, 10))
def test_order_of_rows_does_not_matter(found: Mapping[str, tuple[Sequence[float], ...]], seed: int) -> None:
    runs = of_collectives(found)
    order = list(runs.index)
    random.Random(seed).shuffle(order)
    assert as_json(decide(runs.loc[order])) == as_json(decide(runs))


@quick
@given(collectives)
def test_more_tolerance_never_needs_more(found: Mapping[str, tuple[Sequence[float], ...]]) -> None:
    runs = of_collectives(found)
    needs = [list(Outcome).index(outcome) for within in (0, 0.05, 0.5) if (outcome := decide(runs, within).outcome)]
    assert len(needs) in (0, 3) and needs == sorted(needs, reverse=True)


@quick
@given(collectives, st.lists(st.floats(1.0, 90.0), min_size=1, max_size=2))
def test_what_cannot_be_trusted_moves_no_outcome(
    found: Mapping[str, tuple[Sequence[float], ...]], lost: list[float]
) -> None:
    """It is only counted."""
    runs = of_collectives(found)
    failed = pd.concat([runs, runs.head(len(lost)).assign(fidelity="fail", cct_over_bound=lost, run_id="999")])
    alone, among = decide(runs), decide(failed)
    assert among.lines == alone.lines and among.finished == alone.finished + len(lost)


@quick
@given(collectives, st.sampled_from([0, 1, 2, 5]))
def test_it_is_a_sentence_whatever_came(found: Mapping[str, tuple[Sequence[float], ...]], failed: int) -> None:
    runs = of_collectives(found)
    runs.loc[runs.index[:failed], "fidelity"] = "fail"
    verdict = decide(runs)
    for text in (sentence(verdict), *lines(verdict)):
        assert text.endswith(".") and "\n" not in text and "nan" not in text and "None" not in text


# For programs


def test_verdict_json_has_everything_the_sentence_rests_on() -> None:
    content = json.loads(json.dumps(as_json(decide(planted({**SPLITTING, **ECMP_ENOUGH})))))
    assert content.keys() == {"within", "overall", "collectives", "explained", "unexplained"}
    overall = content["overall"]
    assert (overall["outcome"], overall["worst_collective"], overall["trusted"]) == ("splitting-is-enough", "perm", 18)
    assert overall.keys() >= {"sentence", "straddles", "provisional", "spraying_scheme", "runs", "finished", "caveats"}
    [perm, ring] = content["collectives"]
    assert (perm["collective"], perm["outcome"]) == ("perm", "splitting-is-enough")
    assert perm["ethereal"] == pytest.approx({"ratio": 1.02, "least": 1.01, "most": 1.02})
    assert perm["ecmp"] == pytest.approx({"ratio": 1.9, "least": 1.5, "most": 2.3})
    assert ring["outcome"] == "ecmp-is-enough"
    without = json.loads(json.dumps(as_json(decide(planted(on("perm", ecmp=[1.0])))), allow_nan=False))
    assert without["overall"]["outcome"] is None and without["collectives"] == []


def of(ratios: Planted, failed: Planted | None = None) -> Verdict:
    return decide(planted(ratios, failed))


@pytest.mark.parametrize(
    ("verdict", "fail_on", "said"),
    [
        (of(SPRAYING), (), None),
        (of(SPRAYING), ("spraying-pays",), "packet spraying pays"),
        (of(SPLITTING), ("spraying-pays", "fidelity"), None),
        (of({}, SPLITTING), ("spraying-pays",), "there is no verdict"),
        (of(on("perm", ecmp=[1.0])), ("spraying-pays",), "there is no verdict"),
        (of(SPLITTING, on("perm", ecmp=[1.0])), ("spraying-pays",), None),
        (of(SPLITTING, on("perm", ecmp=[1.0])), ("spraying-pays", "fidelity"), "1 of 10 runs cannot be trusted"),
        (of(SPRAYING), ("fidelity",), None),
    ],
)
def test_fail_on(verdict: Verdict, fail_on: tuple[str, ...], said: str | None) -> None:
    refused = refusal(verdict, fail_on)
    assert (refused is None) == (said is None)
    assert said is None or (refused and said in refused)


def test_threshold_of_the_manifest_holds_unless_another_is_given() -> None:
    runs = planted(on("perm", spray=[1.0] * 3, ethereal=[1.08] * 3))
    assert of_results(runs, {"within": 0.1}).outcome is Outcome.SPLITTING
    assert of_results(runs, {"within": 0.1}, 0.02).outcome is Outcome.SPRAYING
    assert of_results(runs, {}).within == 0.05
    wrong: object
    for wrong in ("5%", None, 5, [], float("nan")):
        with pytest.raises(ResultsError, match="within"):
            of_results(runs, {"within": wrong})


@pytest.mark.parametrize(
    ("strain", "faults", "said"),
    [
        ("", [], "on this fabric: within"),
        ("jitter: 5%", [], "on this fabric under its strain: within"),
        ("jitter: 5%", [{"kind": "down"}], "on this fabric as its links break under its strain: within"),
    ],
)
def test_what_made_it_worse_is_part_of_the_sentence(strain: str, faults: list[Any], said: str) -> None:
    runs = planted(on("ring", ecmp=(1.0, 1.0), spray=(1.0, 1.0), ethereal=(1.0, 1.0)))
    assert said in sentence(of_results(runs.assign(strain=strain), {"experiment": {"faults": faults}}))


def test_a_program_is_one_load_whatever_traffic_its_experiment_lists() -> None:
    runs = planted(on("nccl", spray=[1.0] * 3, ethereal=[1.01] * 3))
    listed = {"traffic": [{}, {}, {}], "seeds": [1, 2, 3], "schemes": ["spray", "ethereal"]}
    assert Asked.of(runs, {"experiment": listed, "program": {"schemes": ["spray"]}}).collectives == 1
    assert Asked.of(runs, {"experiment": listed}).collectives == 3
