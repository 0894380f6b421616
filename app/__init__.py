"""The service: FastAPI over PostgreSQL. Never loads torch."""
