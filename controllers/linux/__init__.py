"""Leaves and spines as Linux routers, each in a network namespace of its own."""
