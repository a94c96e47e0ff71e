"""Cut smaller students from a teacher: layers, width, dimensions, static tables, and the choice of what to cut.

This package trains nothing.
"""
