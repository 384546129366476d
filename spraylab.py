"""Results in Python: frames of a results folder, and figures of them at the width of a paper's column.

>>> import spraylab
>>> results = spraylab.load("results/mine")
>>> results.trusted.groupby(["traffic", "scheme"]).cct_s.median()
>>> with spraylab.paper():
...     spraylab.completion_times(results).figure.savefig("cct.pdf")
"""

from experiments.results.figures import completion_times, congestion, curve, flow_times, link_loads, paper, timeline
from experiments.results.folder import ResultsError
from experiments.results.loaded import Loaded, load

__all__ = [
    "Loaded",
    "ResultsError",
    "completion_times",
    "congestion",
    "curve",
    "flow_times",
    "link_loads",
    "load",
    "paper",
    "timeline",
]
