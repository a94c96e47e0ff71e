"""Weights and activations of an OpenVINO graph in fewer bits: NNCF, through optimum-intel where that is installed.

    optimum-intel there      OVQuantizer, which hands its settings on to NNCF
    optimum-intel missing    the same calls of NNCF on the graph itself

Both give the same bytes: a test compares them. optimum-intel follows transformers by half a year, so that a machine with the
newest transformers has none; one that is there but does not fit its transformers (it imports names that are gone) counts as missing.
"""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import numpy as np

from distill.graphs.openvino import Traced
from distill.models.modeling import quiet

__all__ = ["compress_weights", "has_optimum", "quantize"]

log = logging.getLogger(__name__)
Inputs = Sequence[Mapping[str, np.ndarray]]
_LONGEST = 200
_DEFAULT_SAMPLES = 128  # of NNCF's `subset_size`, where there is no sample: it has to be a number


@cache
def has_optimum() -> bool:
    """Tell whether optimum-intel is there and can be imported beside this transformers; what is wrong with it is logged."""
    try:
        with quiet():
            from optimum.intel import OVConfig, OVModelForFeatureExtraction, OVQuantizer  # noqa: F401
    except Exception as error:  # a lazy module raises what it likes about a name that is gone
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing not in ("optimum", "optimum.intel"):
            reason = " ".join(str(error).split())[:_LONGEST]
            log.warning("optimum-intel cannot be used (%s); NNCF is called directly, with the same result", reason)
        return False
    return True


def quantize(traced: Traced, sample: Inputs, *, ignored: Sequence[str], alpha: float, overflow_safe: bool) -> None:
    """Put the matrix products of a graph in int8, weights and activations, in place.

    :param sample: what sets the ranges, one text at a time and unpadded. *Shape:* each array (1, n_tokens)
    :param ignored: matrix products that stay in float
    :param alpha: of SmoothQuant; -1 turns it off
    :param overflow_safe: weights in 7 bits, see `students.export.arithmetic`
    """
    fix = "enable" if overflow_safe else "disable"
    _call(_quantize_through_optimum if has_optimum() else _quantize, traced, sample, list(ignored), alpha, fix)


def compress_weights(traced: Traced, sample: Inputs, *, ignored: Sequence[str], bits: int, **options: Any) -> None:
    """Store the weights of a graph in 8 or 4 bits, in place.

    :param sample: what int4 weights are fitted on; empty for int8
    :param ignored: matrix products that stay in float
    :param options: further settings of NNCF, by the names of optimum's `OVWeightQuantizationConfig`
    """
    _call(_compress_through_optimum if has_optimum() else _compress, traced, sample, list(ignored), bits, options)


def _call(work: Callable[..., None], *arguments: Any) -> None:
    with quiet():
        import nncf  # noqa: F401  # it sets up its logger as it is imported
    with quiet(), redirect_stdout(io.StringIO()):  # NNCF draws its bars on stdout
        work(*arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Through optimum
# ---------------------------------------------------------------------------------------------------------------------


def _through_optimum(traced: Traced, settings: Any, sample: Inputs) -> None:
    import nncf
    from optimum.intel import OVConfig, OVModelForFeatureExtraction, OVModelForSequenceClassification, OVQuantizer

    has_own_head = [port.get_any_name() for port in traced.model.outputs] == ["logits"]
    model_class = OVModelForSequenceClassification if has_own_head else OVModelForFeatureExtraction
    model = model_class(traced.model, traced.config, compile=False)
    dataset = nncf.Dataset(sample) if sample else None
    OVQuantizer(model).quantize(dataset, ov_config=OVConfig(quantization_config=settings))
    traced.model = model.model


def _quantize_through_optimum(traced: Traced, sample: Inputs, ignored: list[str], alpha: float, fix: str) -> None:
    from optimum.intel import OVQuantizationConfig

    settings = OVQuantizationConfig(
        num_samples=len(sample),
        model_type="transformer",
        ignored_scope={"names": ignored},
        overflow_fix=fix,
        advanced_parameters=_smoothed(alpha),
    )
    _through_optimum(traced, settings, sample)


def _compress_through_optimum(
    traced: Traced, sample: Inputs, ignored: list[str], bits: int, options: Mapping[str, Any]
) -> None:
    from optimum.intel import OVWeightQuantizationConfig

    n_samples = {"num_samples": len(sample)} if sample else {}
    settings = OVWeightQuantizationConfig(bits=bits, ignored_scope={"names": ignored}, **n_samples, **options)
    _through_optimum(traced, settings, sample)


# ---------------------------------------------------------------------------------------------------------------------
# Directly
# ---------------------------------------------------------------------------------------------------------------------


def _smoothed(alpha: float) -> Any:
    """Return NNCF's settings with this α; optimum's own option takes 0 for its default of 0.95."""
    import nncf

    settings = nncf.AdvancedQuantizationParameters()
    settings.smooth_quant_alphas.matmul = alpha
    return settings


def _quantize(traced: Traced, sample: Inputs, ignored: list[str], alpha: float, fix: str) -> None:
    import nncf

    settings = _smoothed(alpha)
    settings.overflow_fix = nncf.OverflowFix(fix)
    traced.model = nncf.quantize(
        traced.model,
        nncf.Dataset(sample),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(sample),
        fast_bias_correction=True,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=ignored),
        advanced_parameters=settings,
    )


def _compress(traced: Traced, sample: Inputs, ignored: list[str], bits: int, options: Mapping[str, Any]) -> None:
    import nncf

    arguments = dict(options)
    if fallback := arguments.pop("group_size_fallback", None):
        settings = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode(fallback))
        arguments["advanced_parameters"] = settings
    if metric := arguments.pop("sensitivity_metric", None):
        arguments["sensitivity_metric"] = nncf.SensitivityMetric(metric)
    mode = nncf.CompressWeightsMode.INT4_ASYM if bits == 4 else nncf.CompressWeightsMode.INT8_ASYM
    traced.model = nncf.compress_weights(
        traced.model,
        mode=mode,
        ignored_scope=nncf.IgnoredScope(names=ignored),
        dataset=nncf.Dataset(sample) if sample else None,
        subset_size=len(sample) or _DEFAULT_SAMPLES,
        **arguments,
    )
