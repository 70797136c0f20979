"""Messages and stubs of the wire protocol, generated from `protos/rallypoint/v1` by `make proto`."""
