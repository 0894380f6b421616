"""DEFT: data grading and distribution-guided fine-tuning, importable and runnable on its own.

The torch-free part (``specs``, ``stages``, ``plan``, ``types``, ``errors``, ``events``, ``store``) is what
the service, the workers and the client import. Everything that needs torch is imported by a stage's function,
in the engine's own process.
"""
