"""Rallypoint: what the coordinator, the node agent and their clients share."""

__version__ = "0.1.0"
