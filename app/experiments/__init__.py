"""Experiments: arms and seeds as jobs, and their results read as one table."""
