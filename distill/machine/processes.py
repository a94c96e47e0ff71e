"""What the processes of one launch decide together."""

__all__ = ["from_first_process"]


def from_first_process(value: bool | None) -> bool:
    """Return the first process's value on all processes: each calls this, the others with None."""
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([value])[0])
