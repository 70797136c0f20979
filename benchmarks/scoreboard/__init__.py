"""Rallypoint beside torchrun, in one run on one machine: ``make bench``, docs/performance.md."""
