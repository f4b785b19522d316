"""Benchmarks: one module a question, each ``python -m benchmarks.NAME [--json] [--quick]``."""
