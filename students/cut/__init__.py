"""Smaller students out of a teacher: layers, width, dimensions, static tables, and what may go.

It trains nothing.
"""
