"""Makes smaller students from a teacher: layers, width, dimensions, static tables, and the importance of each part.

Nothing here trains a model.
"""
