// AVX-512 VNNI.
#if defined(__x86_64__)
#include <limits>

#include "avx512.h"

namespace {

int32_t quantize_block(const float* x, Activations& out) {
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float inverse = largest > SMALLEST ? 127.0f / largest : 0.0f;
    out.scale = largest > SMALLEST ? largest / 127.0f : 0.0f;
    // Neither max nor the conversion to integers keeps a NaN.
    if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) out.scale = std::numeric_limits<float>::quiet_NaN();
    // What is infinite becomes the least integer, which bytes do not hold: the sum is to be of the bytes, so that every tile means the same.
    const __m512i least = _mm512_set1_epi32(-128);
    const __m512i first = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inverse))), least);
    const __m512i second = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inverse))), least);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants), _mm512_cvtsepi32_epi8(first));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out.quants + 16), _mm512_cvtsepi32_epi8(second));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
}

}  // namespace

const Kernels avx512_vnni_kernels = {"avx512_vnni", quantize_rows<Avx512, quantize_block>, multiply_any<Avx512>};
#endif
