"""Words of messages that more than one part prints."""

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> counted(1, "pair"), counted(0, "pair"), counted(1200, "query")
    ('1 pair', '0 pairs', '1,200 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"
