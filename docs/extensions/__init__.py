"""Sphinx extensions that make the pages which are generated from the repository's files."""
