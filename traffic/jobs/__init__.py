"""Training jobs: whole iterations of computing and communicating, as one graph of tasks.

To add a job, write a function that adds an iteration to a `Graph` (traffic/jobs/graph.py), and name it below.
"""

from __future__ import annotations

from traffic.jobs import data, split
from traffic.jobs.graph import JobError, Scale
from traffic.jobs.job import Job, Training, draw_up
from traffic.jobs.models import MODELS

__all__ = ["JOBS", "MODELS", "Job", "JobError", "Scale", "Training", "draw_up"]

JOBS: dict[str, Job] = {
    job.name: job for job in (data.DDP, data.FSDP, data.ZERO1, split.TENSOR, split.PIPELINE, split.EXPERTS)
}
"""By name."""
