"""Mining candidates for queries: a retriever finds them, a teacher scores them, likely false negatives are left out.

The rest is drawn in strata of ranks. This package trains nothing.
"""
