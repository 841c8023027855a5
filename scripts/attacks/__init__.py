"""Commands that print the figures of single attacks."""
