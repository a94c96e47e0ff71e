"""Measure quality, latency and cost of a run's models, and put the results together for a report.

`distill.report` draws the report.
"""
