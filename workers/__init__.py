"""Celery workers: one task that claims a stage run and supervises the engine's process."""
