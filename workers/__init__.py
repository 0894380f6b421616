"""The Celery workers: one task that claims a stage run, supervises its engine and reports."""
