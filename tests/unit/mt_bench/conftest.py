from tests.unit.endpoints.conftest import allowed, at_once

__all__ = ["allowed", "at_once"]
