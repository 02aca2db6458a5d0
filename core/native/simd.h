// Vectors of floats in GCC's and Clang's portable form: as wide as the processor's registers, whatever they are.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lamina {

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a register
#else
constexpr int W = 8;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef float vf_at __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint16_t vh_at __attribute__((vector_size(W * 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(W * 4)));
typedef uint16_t vh __attribute__((vector_size(W * 2)));
typedef int8_t vb_at __attribute__((vector_size(W), aligned(1), may_alias));
typedef uint8_t vc_at __attribute__((vector_size(W), aligned(1), may_alias));
typedef uint32_t vu_at __attribute__((vector_size(W * 4), aligned(2), may_alias));
typedef uint16_t bf16;  // the upper half of a float

inline vf splat(float x) { return x - vf{}; }
inline vf load(const float* p) { return *(const vf_at*)p; }
inline vf load(const bf16* p) { return (vf)(__builtin_convertvector(*(const vh_at*)p, vu) << 16); }
inline void store(float* p, vf x) { *(vf_at*)p = x; }

inline float widen(float x) { return x; }
inline float widen(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float made;
    std::memcpy(&made, &bits, 4);
    return made;
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, bf16* to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    *to = std::isnan(x) ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#if defined(__AVX2__)
inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
#endif

inline float sum(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#elif defined(__AVX2__)
    return sum8((__m256)x);
#else
    float total = 0;
    for (int i = 0; i < W; i++) total += x[i];
    return total;
#endif
}

template <class A, class B>
inline float dot(const A* a, const B* b, int64_t n) {
    vf s0 = {}, s1 = {};
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        s0 += load(a + i) * load(b + i);
        s1 += load(a + i + W) * load(b + i + W);
    }
    for (; i + W <= n; i += W) s0 += load(a + i) * load(b + i);
    float total = sum(s0 + s1);
    for (; i < n; i++) total += widen(a[i]) * widen(b[i]);
    return total;
}

// e^x within two units in the last place: 2^n · e^r with |r| <= ln 2 / 2, e^r by its series to r^7.
inline vf exp(vf x) {
    x = x < -87.0f ? splat(-87.0f) : x;
    x = x > 88.0f ? splat(88.0f) : x;
    const float magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number
    vf n = (x * 1.44269504088896341f + magic) - magic;
    vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    vi scale = (__builtin_convertvector(n, vi) + 127) << 23;
    return p * (vf)scale;
}

}  // namespace lamina
