"""FP8: numbers of 8 bits with a scale for each tensor, each output or each block, as DeepSeek and Qwen publish them.

A layer is stored as weight float8_e4m3fn [out, in] and weight_scale_inv fp32 [out / rows, in / columns], rounded up, which weights are
multiplied by, whatever its name says (https://arxiv.org/abs/2412.19437, 3.3.2; the class FineGrainedFP8Config of transformers). AutoFP8
and FBGEMM call it weight_scale; scales of the type E8M0 make it MXFP8.
"""

from __future__ import annotations

from collections.abc import Mapping

from mm_gateway.errors import ModelLoadError
from mm_gateway.runtime.checkpoints.quantized.floats import ScaledLayer, scale_block
from mm_gateway.runtime.checkpoints.quantized.format import WeightFormat, quantization_of
from mm_gateway.runtime.checkpoints.quantized.layer import StoredLayer
from mm_gateway.runtime.checkpoints.stored.stored_tensors import StoredTensors

_SCALES = ("weight_scale_inv", "weight_scale", "scale")
_WEIGHTS = ("F8_E4M3", "F8_E5M2")


class Fp8(WeightFormat):
    name = "fp8"
    title = "FP8"
    published = True
    methods = ("fp8", "fbgemm_fp8", "mxfp8")
    packages = ("kernels",)
    hub_kernels = True

    def layers(self, stored: StoredTensors) -> Mapping[str, StoredLayer]:
        size = quantization_of(stored.folder).get("weight_block_size")
        block = (int(size[0]), int(size[1])) if size else None
        found: dict[str, StoredLayer] = {}
        for name, header in stored.headers.items():
            if header.dtype not in _WEIGHTS:
                continue
            layer = name.removesuffix("weight")
            scale = next((stored.headers[layer + part] for part in _SCALES if layer + part in stored.headers), None)
            if scale is None or len(header.shape) != 2:
                raise ModelLoadError(f"The FP8 weight {name} has no scale: files are missing. Download the checkpoint again")
            found[name] = scaled_layer(name, header.shape, scale.name, scale.shape, block)
        return found


def scaled_layer(name: str, shape: tuple[int, ...], scale: str, scale_shape: tuple[int, ...], block: tuple[int, int] | None) -> ScaledLayer:
    """Raises ModelLoadError where weight and scale do not fit together."""
    fitting = scale_block(shape, scale_shape, block)
    if fitting is None:
        raise ModelLoadError(f"The scale {list(scale_shape)} of {name} {list(shape)} does not fit blocks of {block or 'no given size'}")
    return ScaledLayer(shape, {"weight": name, "scale": scale}, None, fitting)
