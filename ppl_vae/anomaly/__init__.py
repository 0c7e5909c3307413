"""Anomaly scores of rows, and a detector with a known rate of false alarms."""
