"""Writes the table of a hospital's own records from the folders that they lie in."""
