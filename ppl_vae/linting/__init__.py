"""Faults of a pair or its data, found before training: ``lint`` and its rules."""
