"""Whatever gives a score to a pair, opened by one call: models, TF-IDF, paragraphs, endpoints, cascades.

It measures nothing.
"""
