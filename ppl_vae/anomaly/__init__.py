"""Which rows are strange: scores, p-values and a detector that is calibrated on clean rows."""
