"""Scorers of pairs, all opened by one call: models, TF-IDF, paragraphs, endpoints, cascades.

Measuring them is the task of `distill.evaluation`.
"""
