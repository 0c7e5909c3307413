"""The zoo: models and guides by name, classes in a user's own file, constructor sizes from data."""
