"""Quality, latency and cost of what a run made, put together for a report.

It draws nothing: `distill.report` does.
"""
