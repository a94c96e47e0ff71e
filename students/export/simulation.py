"""int8 simulated in float, for quantization-aware training (Jacob et al. 2018).

    x̂ = Δ·(clamp(round(x/Δ) + z, 0, 255) − z)     activations: one step Δ and zero point z for the whole tensor
    Ŵ = δ·round(W/δ),  δ = max|W|/64               weights: one step for each output, of the weights as they are now, in 7 bits
    y = x̂·Ŵᵀ + b

Activation ranges are fixed by a calibration pass, as those of a static int8 graph are. `round` has the gradient of the
identity ("straight through"), `clamp` its own: what lies outside of the range learns nothing. Where the export smooths
(SmoothQuant, Xiao et al. 2022), x/s and s·W are what is rounded, here as there: behind layer norms. OpenVINO smooths the
other layers, too; ONNX does not, and what is simulated is to hold in both.

A simulated layer has the parameters and the state of the layer it stands for: what is saved is an ordinary model.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from students.export.calibration import Sample, show_linear_inputs
from students.export.float_layers import stays_float
from students.export.quantize_onnx import smooth_scale
from students.export.rounding import SAFE_CODE

__all__ = ["Int8Linear", "rounded", "show_inputs_and_norms", "simulate_int8"]

_LEAST = 1e-12


def rounded(values: Tensor) -> Tensor:
    """Round to whole numbers, with the gradient of the identity.

    >>> x = torch.tensor([0.4, 1.6], requires_grad=True)
    >>> (rounded(x) * torch.tensor([1.0, 3.0])).sum().backward()
    >>> rounded(x).tolist(), x.grad.tolist()
    ([0.0, 2.0], [1.0, 3.0])
    """
    return values + (values.round() - values).detach()


class Int8Linear(nn.Linear):
    """A linear layer whose weights and inputs are rounded to int8 on the way; the same parameters, the same state.

    :param low: what the layer's inputs were at least, channel by channel, in calibration. *Shape:* (n_in,)
    :param high: what they were at most. *Shape:* (n_in,)
    :param alpha: of SmoothQuant; -1 turns it off
    :param beside: the weights of the other layers that read the same layer norm, whose output is divided once for all
    """

    smooth: Tensor
    step: Tensor
    zero: Tensor

    def __init__(
        self, layer: nn.Linear, low: Tensor, high: Tensor, alpha: float = -1, beside: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        smooth = torch.ones_like(low)
        if alpha >= 0:
            greatest = torch.maximum(low.abs(), high.abs())
            weights = [weight.detach().numpy().T for weight in (layer.weight, *beside)]
            smooth = torch.from_numpy(smooth_scale(greatest.numpy(), weights, alpha))
        lowest, highest = (low / smooth).amin().clamp_max(0), (high / smooth).amax().clamp_min(0)
        step = (highest - lowest).clamp_min(_LEAST) / 255
        # not part of the state: what is saved is the layer that this one stands for
        self.register_buffer("smooth", smooth, persistent=False)
        self.register_buffer("step", step, persistent=False)
        self.register_buffer("zero", (-lowest / step).round(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply as a static int8 graph does. *Shape:* (…, n_in) → (…, n_out)."""
        with torch.autocast(input.device.type, enabled=False):
            scaled = input.float() / (self.smooth * self.step) + self.zero
            codes = rounded(scaled.clamp(0, 255)) - self.zero
            weight = self.weight * self.smooth
            scale = weight.detach().abs().amax(dim=1, keepdim=True).clamp_min(_LEAST) / SAFE_CODE
            weight_codes = rounded(weight / scale)
        # whole numbers up to 255, which bfloat16 has, too: autocast rounds nothing but the products
        products = functional.linear(codes, weight_codes)
        result = products * (scale.squeeze(1) * self.step)
        result = result if self.bias is None else result + self.bias
        return result.to(products.dtype)


def simulate_int8(
    transformer: Any,
    sample: Sample,
    *,
    keep_float: Sequence[str] | Literal["ffn_down", "search"] | None = None,
    alpha: float = -1,
) -> list[str]:
    """Simulate int8 in a transformer's linear layers, in place; return the names of those layers.

    :param sample: sets the ranges
    :param keep_float: as in `export_model`: what stays in float there is not simulated here
    """
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}

    def note(name: str, rows: Tensor) -> None:
        least, most = rows.amin(dim=0), rows.amax(dim=0)
        low[name] = torch.minimum(low[name], least) if name in low else least
        high[name] = torch.maximum(high[name], most) if name in high else most

    transformer.eval()
    norm_of = show_inputs_and_norms(transformer, sample, note)
    names = [name for name in low if not stays_float(name, keep_float)]
    weights = {name: transformer.get_submodule(name).weight for name in names}
    for name in names:
        beside = [weights[other] for other in names if other != name and norm_of.get(other) == norm_of.get(name)]
        settings = (alpha, beside) if name in norm_of else (-1,)
        layer = transformer.get_submodule(name)
        transformer.set_submodule(name, Int8Linear(layer, low[name], high[name], *settings))
    return names


def show_inputs_and_norms(transformer: Any, sample: Sample, note: Callable[[str, Tensor], None]) -> dict[str, int]:
    """Do what `show_linear_inputs` does; return which layer norm each layer behind one reads, by the layer's name."""
    norm_of: dict[str, int] = {}
    normed: dict[int, Tensor] = {}  # held on to: the memory of a tensor that is gone may be another's

    def noted(name: str, rows: Tensor) -> None:
        for norm, output in normed.items():
            if output.data_ptr() == rows.data_ptr():
                norm_of[name] = norm
        note(name, rows)

    hooks = [
        module.register_forward_hook(lambda norm, _, output: normed.update({id(norm): output}))
        for module in transformer.modules()
        if isinstance(module, nn.LayerNorm)
    ]
    show_linear_inputs(transformer, sample, noted)
    for hook in hooks:
        hook.remove()
    return norm_of
