"""The typed client of the service, and the `deft` command."""
