"""Errors, records, configurations and vocabulary shared by every other folder; no third-party imports."""
