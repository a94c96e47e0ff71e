"""Call OpenAI-compatible servers with retries, a budget and a ledger that survives a kill.

This package does not know the purpose of a request.
"""
