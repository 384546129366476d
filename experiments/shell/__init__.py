"""Mininet's command line on a running fabric: `spraylab shell`."""
