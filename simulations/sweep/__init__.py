"""Runs over budgets, seeds and whatever else is varied, and what they come to together."""
