"""Process résumés as text: split them into sections, and remove personal data.

No module here reads or writes files.
"""
