"""What `experiments.results.verdict` computes, in sentences for people and in keys for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from experiments.judge.programs import LOADED
from experiments.judge.wording import apart
from experiments.results.verdict import (
    BY_NEED,
    LEAST_SEEDS,
    PLAIN,
    SPLITTING,
    SPRAYS,
    Line,
    Margin,
    Outcome,
    Verdict,
    widest,
)
from experiments.theory.prediction import EXPLAINED

SPLIT = "a single path with minimal splitting"
DEALT = "a single path a connection, dealt round-robin"
"""What splitting is for unmodified programs, whose connections nobody can split."""

_IN_SHORT: Mapping[Outcome, str] = {
    Outcome.ECMP: "ECMP is enough",
    Outcome.SPLITTING: "splitting is enough",
    Outcome.SPRAYING: "spraying pays",
}
_NUMBERS = {1: "one is", 2: "two are"}


def sentence(verdict: Verdict) -> str:
    """The answer for the experiment as a whole, with what it rests on; or why there is none."""
    asked = verdict.asked
    if verdict.missing:
        verb = "lack" if len(asked.schemes) != 1 else f"are {asked.schemes[0]} alone and lack"
        return (
            f"No verdict: whether spraying is needed takes {SPLITTING} and {SPRAYS[0]} (or {' or '.join(SPRAYS[1:])}), "
            f"and the schemes here {verb} {' and '.join(verdict.missing)}."
        )
    if not verdict.finished:
        return "No verdict: no run has finished."
    if verdict.idle:
        why = "nothing was sent"
        if verdict.silent < verdict.idle:
            why = f"no port was ever loaded (sent at {LOADED:.0%} of its rate)"
        return f"No verdict: in {verdict.idle} of {verdict.finished} runs {why}."
    if not verdict.quorum:
        trusted = verdict.trusted or "none"
        return f"No verdict: {trusted} of {asked.runs} runs can be trusted (fidelity), two thirds are needed."
    if verdict.outcome is None:
        return f"No verdict: {'; '.join(f'on {line.traffic}, {_lacking(verdict, line)}' for line in verdict.lines)}."
    claim = _claim(verdict, verdict.outcome)
    if verdict.straddles:
        claim = f"Too close to call, as seeds lie on both sides of the limit; by the medians: {claim}"
    return f"{claim} ({'; '.join([*_basis(verdict), *caveats(verdict)])})."


def expectation(verdict: Verdict) -> str:
    """The answer that predictions give, which no run has shown yet."""
    if verdict.outcome is None:
        return sentence(verdict)
    claim = _claim(verdict, verdict.outcome)
    doubt = " It is close: seeds lie on both sides of the limit." if verdict.straddles else ""
    return f"By theory, {claim[0].lower()}{claim[1:]}.{doubt}"


def lines(verdict: Verdict) -> list[str]:
    """A sentence a collective, in the order of their runs' ids."""
    return [line_sentence(verdict, line) for line in verdict.lines]


def line_sentence(verdict: Verdict, line: Line) -> str:
    """One collective's outcome and margins; or why it has none."""
    outcome, why = line_words(verdict, line)
    return f"No verdict on {line.traffic}: {why}." if line.outcome is None else f"{line.traffic}: {outcome}: {why}."


def line_words(verdict: Verdict, line: Line) -> tuple[str, str]:
    """One collective's outcome in short, and what it rests on or lacks."""
    if line.outcome is None:
        return "no verdict", _lacking(verdict, line)
    outcome = _IN_SHORT[line.outcome]
    if line.straddles:
        least, most = (_IN_SHORT[end(line.outcomes, key=BY_NEED.index)] for end in (min, max))
        outcome = f'seeds disagree, from "{least}" to "{most}"; by the medians, {outcome}'
    margins = [
        f"{name} took {_times(margin, verdict)} the time of {verdict.baseline}"
        for name, margin in ((verdict.splitting, line.ethereal), (PLAIN, line.ecmp))
        if margin
    ]
    provisional = f"; {_no_spread(verdict)}" if line.provisional else ""
    return outcome, f"{', '.join(margins)}{provisional}"


def caveats(verdict: Verdict) -> list[str]:
    """What one should know beside the outcome."""
    asked, found = verdict.asked, []
    if left_out := verdict.finished - verdict.trusted:
        found.append(f"{_count(left_out, 'run')} left out: fidelity failed")
    if unfinished := asked.runs - verdict.finished:
        found.append(f"{_count(unfinished, 'run')} without a result")
    found += [f"no verdict on {line.traffic}: {_lacking(verdict, line)}" for line in verdict.lines if not line.outcome]
    if verdict.lines and (unseen := asked.collectives - len(verdict.lines)) > 0:
        found.append(f"nothing is known of {_count(unseen, 'collective')} more")
    if PLAIN not in asked.schemes:
        found.append("ECMP was not run")
    if verdict.unexplained:
        worst, *others = verdict.unexplained
        more = f", and {_count(len(others), 'more run')} likewise" if others else ""
        found.append(
            f"rests on a number nobody can explain: {worst.traffic} under {worst.scheme} took "
            f"{worst.emulated_over_predicted:.2f} x its prediction{more}"
        )
    return found


def as_json(verdict: Verdict) -> dict[str, Any]:
    """What verdict.json holds.

    within         the threshold, as a share of the spraying scheme's time
    overall        outcome (ecmp-is-enough, splitting-is-enough, spraying-pays, or null: no verdict), sentence,
                   straddles (another seed may turn it), provisional (no spread over seeds is known), spraying_scheme
                   and splitting_scheme (what is compared; the latter is the one that `ethereal` is about below),
                   worst_collective (by the scheme the outcome is about), runs asked for, finished and trusted, seeds,
                   caveats
    collectives    for each: collective, outcome, sentence, straddles, provisional; of ecmp and ethereal the ratio of
                   medians to the spraying scheme's, least and most of the ratios by seed; null where not known
    explained      emulated over predicted time, from and to which theory explains a run
    unexplained    runs it rests on that theory does not explain, the worst first
    """
    return {
        "within": verdict.within,
        "overall": {
            "outcome": verdict.outcome,
            "sentence": sentence(verdict),
            "straddles": verdict.straddles,
            "provisional": verdict.provisional,
            "spraying_scheme": verdict.baseline or None,
            "splitting_scheme": verdict.splitting,
            "worst_collective": verdict.worst.traffic if verdict.worst else None,
            "runs": verdict.asked.runs,
            "finished": verdict.finished,
            "trusted": verdict.trusted,
            "seeds": list(verdict.asked.seeds),
            "caveats": caveats(verdict),
        },
        "collectives": [
            {
                "collective": line.traffic,
                "outcome": line.outcome,
                "sentence": line_sentence(verdict, line),
                "straddles": line.straddles,
                "provisional": line.provisional,
                "ecmp": line.ecmp and asdict(line.ecmp),
                "ethereal": line.ethereal and asdict(line.ethereal),
            }
            for line in verdict.lines
        ],
        "explained": list(EXPLAINED),
        "unexplained": [asdict(run) for run in verdict.unexplained],
    }


def percent(share: float) -> str:
    """0.05 -> '5 %'."""
    return f"{100 * share:g} %"


def _claim(verdict: Verdict, outcome: Outcome) -> str:
    limit, spray, worst = percent(verdict.within), verdict.baseline, verdict.worst
    single_path = f"{DEALT if verdict.asked.programs else SPLIT} ({verdict.splitting})"
    assert worst is not None, "an outcome has a line it comes from"
    if outcome is Outcome.SPRAYING:
        ecmp = f"; plain ECMP took {_times(worst.ecmp, verdict)}" if worst.ecmp else ""
        return (
            f"Packet spraying pays on this fabric{verdict.asked.under}: on {worst.traffic}, {single_path} took "
            f"{_times(worst.ethereal, verdict)} the time of {spray}, more than {limit} longer{ecmp}"
        )
    if outcome is Outcome.ECMP:
        everywhere = _everywhere(verdict, _times(worst.ecmp, verdict))
        return f"Plain ECMP is enough on this fabric{verdict.asked.under}: within {limit} of {spray} {everywhere}"
    slowest = widest(verdict.answered, "ecmp")
    ecmp = f"; plain ECMP is not: {_times(slowest.ecmp, verdict)} on {slowest.traffic}" if slowest else ""
    everywhere = _everywhere(verdict, _times(worst.ethereal, verdict))
    fabric = f"this fabric{verdict.asked.under}"
    return f"No need for packet spraying on {fabric}: {single_path} is within {limit} of {spray} {everywhere}{ecmp}"


def _everywhere(verdict: Verdict, margin: str) -> str:
    """On which collectives, and where the margin is widest."""
    worst = verdict.worst
    assert worst is not None, "an outcome has a line it comes from"
    answered, known = len(verdict.answered), max(len(verdict.lines), verdict.asked.collectives)
    if known == 1:
        return f"on {worst.traffic} ({margin})"
    where = "on every collective" if answered == known else f"on {answered} of {known} collectives"
    if verdict.outcome is Outcome.SPLITTING and widest(verdict.answered, "ethereal") is not worst:
        where = "wherever plain ECMP is not"
    return f"{where}, at worst {margin} on {worst.traffic}"


def _times(margin: Margin | None, verdict: Verdict) -> str:
    """As many digits as tell the ratio from the limit."""
    if margin is None:
        return "an unknown multiple of"
    spread = "" if margin.least is None else f" ({margin.least:.2f} to {margin.most:.2f} by seed)"
    ratio, _ = apart(margin.ratio, 1 + verdict.within, digits=2)
    return f"{ratio} x{spread}"


def _basis(verdict: Verdict) -> list[str]:
    trusted = f"{verdict.trusted} of {verdict.asked.runs} runs trusted"
    if len(verdict.asked.seeds) == 1:
        return [trusted, _no_spread(verdict)]
    counted = _count(len(verdict.asked.seeds), "seed")
    unknown = [line.traffic for line in verdict.answered if line.provisional]
    return [trusted, counted, *([f"on {', '.join(unknown)}, {_no_spread(verdict)}"] if unknown else [])]


def _no_spread(verdict: Verdict) -> str:
    if len(verdict.asked.seeds) == 1:
        return "provisional: one seed, no spread known"
    return "provisional: fewer than two seeds have trusted runs of both schemes, no spread known"


def _lacking(verdict: Verdict, line: Line) -> str:
    seeds = len(verdict.asked.seeds)
    cells = " and ".join(f"{count} of {_count(seeds, 'seed')} of {scheme}" for scheme, count in line.lacking)
    return f"{cells} can be trusted, {_NUMBERS[min(LEAST_SEEDS, seeds)]} needed"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
