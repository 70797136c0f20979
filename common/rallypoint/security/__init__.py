"""TLS and tokens, as far as the coordinator, the agent and the commands have them in common. Imports no gRPC itself."""
