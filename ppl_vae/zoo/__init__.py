"""Models and guides by name, classes in a user's file, and constructor sizes from data."""
