"""Objectives: Pyro's ELBOs behind one adapter, bounds formed row by row, a batch's loss."""
