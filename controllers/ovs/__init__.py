"""Leaves and spines as Open vSwitch bridges, programmed over OpenFlow."""
