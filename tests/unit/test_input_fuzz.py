"""Whatever is in an experiment file, behind `--set` or in a matrix, the answer is a result or sentences."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.runs.loads.replays import Replays
from experiments.spec.experiment import SpecError, load_experiment
from traffic.formats.htsim import MatrixError, load_matrix

EXPERIMENT = """\
name: test
fabric: {leaves: 2, spines: 2, hosts_per_leaf: 2, host_rate: 10mbit, mtu: 9000, queue: 4MB}
traffic:
  - {collective: alltoall, size: 4MB, window: 3}
  - matrix: perm.cm
schemes: [ecmp, spray, ethereal]
transport: {windows: fitted}
seeds: [1, 2]
"""
MATRIX = "Nodes 4\nConnections 1\n0->1 id 1 start 0 size 1000\n"
LONGEST_LINE = 600

YAML = "*a,&a ,<<: ,!!bool ,!!set ,!!int ,!x ,',\",\\ud800,? ,|\n,%YAML 1.1\n---\n,#,\t,\ufeff,\0,null,~,1e400,.nan"
YAML_WORDS = [*YAML.split(","), "{", "}", "[", "]", ":", ": ", "\n", "\n  ", "- ", ",", "fabric", "实验", "\x85"]
SETTINGS = "64,-1,0,5bit,10 Gb/s,100kB,99999999999,[1],{a: b},alltoall,allreduce,true,auto,/dev/zero,[subflow-64],x"
KEYS = "name,fabric,fabric.spines,fabric.host_rate,fabric.mtu,fabric.burst,traffic,traffic.0,traffic.0.size"
KEYS += ",traffic.0.chunks,traffic.0.channels,traffic.0.algorithm,traffic.1.matrix,seeds,seeds.0,schemes,x,"
CM = "Nodes,4,Connections,1,0->1,1->2,id,start,0,size,1000,trigger,send_done_trigger,oneshot,barrier,count,#,->"
CM_WORDS = [*CM.split(","), "multishot", "\n", "\n", "Triggers", "failure", "1e400", "9" * 20, "\ufeff", "\0", "\ud800"]

yaml_text = st.lists(st.sampled_from(YAML_WORDS) | st.text(max_size=4), max_size=20).map("".join)
overrides = st.lists(
    st.tuples(st.sampled_from(KEYS.split(",")), st.sampled_from(SETTINGS.split(",")) | yaml_text).map("=".join)
    | yaml_text,
    max_size=2,
)
bounded = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written_into(text: str, words: list[str], seed: int) -> str:
    random = Random(seed)
    for word in words:
        start = random.randrange(len(text) + 1)
        text = text[:start] + word + text[start + random.randrange(6) :]
    return text


spoilt = st.builds(
    written_into, st.just(EXPERIMENT), st.lists(st.sampled_from(YAML_WORDS), max_size=3), st.integers(0, 2**32)
)


def are_sentences(message: str) -> bool:
    return all(line.isprintable() and 0 < len(line) < LONGEST_LINE for line in message.split("\n"))


@bounded
@given(text=yaml_text | spoilt, overrides=overrides)
def test_any_experiment_is_planned_or_refused(
    text: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("perm.cm").write_text(MATRIX)
    Path("exp.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert Replays(load_experiment("exp.yaml", overrides)).runs
    except SpecError as refused:
        assert are_sentences(str(refused))


@bounded
@given(words=st.lists(st.sampled_from(CM_WORDS) | st.text(max_size=3), max_size=30))
def test_any_matrix_is_read_or_refused(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "perm.cm"
    path.write_bytes(("Nodes 4\nConnections 1\n" + " ".join(words)).encode("utf-8", "surrogatepass"))
    try:
        assert load_matrix(path).flows
    except MatrixError as refused:
        assert are_sentences(str(refused))
