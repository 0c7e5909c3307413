"""New observations from a pair: replicated data sets, and single rows in the form of the data."""
