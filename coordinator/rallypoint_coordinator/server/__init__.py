"""The coordinator's shell: gRPC in front of the core, the journal behind it. No decisions."""
