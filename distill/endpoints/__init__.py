"""Calls of OpenAI-compatible servers: retries, a budget, a cache and exact resume.

It does not know what is asked.
"""
