"""A student as a graph: exported, quantized, compared with its source and refused where it is not the same.

It trains only to recover int8.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from students.export.stage import (
        DYNAMIC_WARNING,
        FFN_DOWN,
        Format,
        Precision,
        export_model,
        export_openvino,
        export_student,
    )

__all__ = ["DYNAMIC_WARNING", "FFN_DOWN", "Format", "Precision", "export_model", "export_openvino", "export_student"]
__getattr__ = public(
    __name__,
    {
        "DYNAMIC_WARNING": "stage",
        "FFN_DOWN": "stage",
        "Format": "stage",
        "Precision": "stage",
        "export_model": "stage",
        "export_openvino": "stage",
        "export_student": "stage",
    },
)
