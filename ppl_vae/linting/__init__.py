"""``lint``: a pair is run on a few rows and once over all data, and its faults are named."""
