"""Store objects in an append-only file that survives a kill, such as the spending of a budget."""

import json
import math
import os
from pathlib import Path
from types import UnionType
from typing import BinaryIO

from distill.endpoints.answers import JsonObject
from distill.endpoints.budget import Budget
from distill.errors import BadInput

__all__ = ["JsonLines", "budget_of"]


class JsonLines:
    """An append-only file of JSON objects, one per line; an incomplete last line after a kill is removed on reading.

    :param path: the file; it may not exist yet
    :param fields: the type of each field that every object must have
    :raises BadInput: if a line is not such an object
    """

    def __init__(self, path: Path, **fields: type | UnionType) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self.records: list[JsonObject] = []
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise BadInput(f"{path}: line {number} is not JSON; restore the file or name another folder") from None
            if not isinstance(record, dict) or not all(isinstance(record.get(f), t) for f, t in fields.items()):
                wanted = ", ".join(fields) or "fields"
                raise BadInput(
                    f"{path}: line {number} is not an object with {wanted}; restore the file or name another folder"
                )
            self.records.append(record)
        if len(whole) < len(content):
            os.truncate(path, len(whole))

    def append(self, *records: JsonObject, durable: bool = True) -> None:
        """Append records in a single write; with `durable` they are on disk when the call returns."""
        if self._file is None:
            self._file = self.path.open("ab")
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self.records += records

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def budget_of(spending: JsonLines, limit: float | None) -> Budget:
    """Return a budget with the spending of earlier runs; holds that a kill left open count in full.

    :param spending: the changes of the budget; new changes are appended to it
    :param limit: dollars; None is no limit
    :raises BadInput: if an amount is no finite number from 0
    """
    dollars: dict[str, float] = {}
    for number, change in enumerate(spending.records, start=1):
        if not 0 <= change["dollars"] < math.inf:  # NaN and negative amounts would lift the limit
            raise BadInput(
                f"{spending.path}: line {number} has {change['dollars']} dollars; restore the file or name another folder"
            )
        dollars[change.get("hold") or change.get("settled") or ""] = change["dollars"]
    # only a hold must be on disk before the request is sent: without its settlement it counts in full, which is safe
    return Budget(
        limit, spent=sum(dollars.values()), record=lambda change: spending.append(change, durable="hold" in change)
    )
