"""Read and write BGE-m3's two linear heads on token states (Chen et al. 2024, M3-Embedding, arXiv 2402.03216).

    sparse_linear      (width) → 1: its relu is a token's weight
    colbert_linear     (width) → n: late interaction compares its normalised outputs

They are published as pickles of tensors, sparse_linear.pt and colbert_linear.pt. A .safetensors file of the same name
is preferred. Only tensors are read from a pickle (`weights_only`); a pickle with anything else is refused and runs no
code.
"""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import BadInput, loading
from distill.models.modeling import quiet, stored_file
from distill.models.whole_weights import not_finite

__all__ = ["HEADS", "M3Heads", "find_head", "read_heads", "write_heads"]

log = logging.getLogger(__name__)
HEADS = ("sparse_linear", "colbert_linear")
_MOST_BYTES = 1 << 30  # a square matrix of the widest encoders has a tenth of that


@dataclass(frozen=True)
class M3Heads:
    """Both heads as `torch.nn.Linear`, in float32."""

    sparse: Any
    multi_vector: Any

    @property
    def n_parameters(self) -> int:
        """Number of parameters of both heads."""
        return sum(parameter.numel() for head in (self.sparse, self.multi_vector) for parameter in head.parameters())

    def to(self, device: str) -> "M3Heads":
        """Move both heads to a device."""
        return M3Heads(self.sparse.to(device), self.multi_vector.to(device))


def find_head(name: str, head: str) -> Path:
    """Return the file of a head in a folder or hub repository.

    :raises BadInput: if there is none
    """
    path = stored_file(name, f"{head}.safetensors") or stored_file(name, f"{head}.pt")
    if path is None:
        raise BadInput(
            f"{name} has neither {head}.safetensors nor {head}.pt: it is no BGE-m3; name a whole folder of it, or take it as a bi_encoder"
        )
    return path


def read_heads(name: str | Path, width: int) -> M3Heads:
    """Read both heads of a folder or hub repository.

    :param width: the width of the encoder's states
    :raises BadInput: if a head is missing, is not a matrix and a bias that fit the encoder, or contains NaN or infinity
    """
    paths = [find_head(str(name), head) for head in HEADS]
    sparse, multi_vector = (_linear(path, _tensors(path), width) for path in paths)
    if sparse.out_features != 1:
        raise BadInput(f"{name}: sparse_linear gives {sparse.out_features} numbers a token; one weight is expected")
    return M3Heads(sparse, multi_vector)


def write_heads(heads: M3Heads, folder: Path) -> None:
    """Write both heads as safetensors."""
    from safetensors.torch import save_file

    for name, head in zip(HEADS, (heads.sparse, heads.multi_vector), strict=True):
        save_file({key: value.contiguous() for key, value in head.state_dict().items()}, folder / f"{name}.safetensors")


def _linear(path: Path, tensors: Mapping[str, Any], width: int) -> Any:
    import torch

    shapes = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}
    n_rows = shapes.get("bias", (0,))[:1]
    if set(shapes) != {"weight", "bias"} or not n_rows or not n_rows[0] or shapes["weight"][:-1] != n_rows:
        raise BadInput(f"{path} is no linear layer: weight (n, width) and bias (n,) are expected; copy it again")
    if not all(_is_plain(tensor) for tensor in tensors.values()):
        raise BadInput(f"{path} holds tensors that are sparse, complex or without values; ordinary ones are expected")
    if shapes["weight"][1] != width:
        raise BadInput(
            f"{path} reads states of width {shapes['weight'][1]}, its encoder has {width}; copy both of one model"
        )
    if (found := not_finite(tensors.items())) is not None:
        raise BadInput(f"{path}: {found} holds NaN or infinity; copy it again")
    linear = torch.nn.Linear(width, n_rows[0])
    linear.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return linear.eval().requires_grad_(False)


def _is_plain(tensor: Any) -> bool:
    import torch

    return bool(tensor.layout == torch.strided and not tensor.is_meta and tensor.is_floating_point())


def _tensors(path: Path) -> Mapping[str, Any]:
    import torch
    from safetensors.torch import load_file

    if path.stat().st_size > _MOST_BYTES:
        raise BadInput(f"{path} has more than {_MOST_BYTES // 2**20} MiB, which no head of an encoder has")
    with quiet(), loading(str(path)):
        if path.suffix == ".safetensors":
            loaded: Mapping[str, Any] = load_file(path)
            return loaded
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise BadInput(
                f"{path} holds more than tensors, and could run code when it is opened; ask for safetensors of it"
            ) from None
    if not isinstance(found, Mapping):
        raise BadInput(f"{path} holds {type(found).__name__}; the tensors of a linear layer by name are expected")
    log.info("%s is a pickle: only its tensors were read", path)
    return found
