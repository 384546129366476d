"""Packet captures as pandas frames, and what they say: no root needed."""
