"""An hour of random faults: does anything grow, and is every restart accounted for? ``make soak MINUTES=60``."""
