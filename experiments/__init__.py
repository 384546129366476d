"""From an experiment file to a verdict: describe, plan, run, judge, report."""
