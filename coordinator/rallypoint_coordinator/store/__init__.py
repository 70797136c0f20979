"""Where decisions are kept: the journal port, its backends, and the stored form of a record."""
