"""Score pairs with anything, opened by one function: models, TF-IDF, paragraphs, endpoints, cascades.

This package does not measure quality or speed.
"""
