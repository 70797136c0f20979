"""The node agent: one per node, it runs the workers and does what the coordinator decides."""
