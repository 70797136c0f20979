"""Fleets larger than this machine: both cores on virtual time, and what they decide, say and write for each event."""
