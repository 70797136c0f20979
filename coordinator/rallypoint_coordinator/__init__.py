"""The coordinator: one per cluster, it decides rendezvous and restarts of every job."""
