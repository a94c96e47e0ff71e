"""Résumés as text: their sections, and what names a person taken out of them.

It reads and writes no file.
"""
