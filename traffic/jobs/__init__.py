"""Training jobs: whole iterations of computing and communicating, as one graph of tasks."""
