"""The private world a run lives in: sandbox, fabric, shaping, meters."""
