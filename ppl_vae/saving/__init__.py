"""Run directories: a pair's weights, how to build the pair again, and the snapshots of a fit."""
