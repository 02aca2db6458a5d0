// y = W·x + b for a few rows x at once: each weight is read from memory once and met by all rows.
//
// Weights are (out, in), of one of four kinds:
//   float32, bfloat16  as they are
//   int8               groups of 32 along `in`: 32 bytes q, a float16 scale s;  w = s·q
//   int4               groups of 32: 16 bytes, the first 16 q in their low halves; float16 s and m;  w = s·q + m
// Quantised weights meet rows rounded to 16 bits: x = t·r with one float t a row, so sums within a group are exact.
#pragma once
#include <vector>

#include "simd.h"

namespace lamina {

enum Kind : int32_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };
constexpr int GROUP = 32;

struct Weight {
    int32_t kind;
    int64_t out, in;
    const void* data;         // numbers, or q
    const uint16_t* scales;   // (out, in / 32) float16
    const uint16_t* offsets;  // (out, in / 32) float16, int4 alone
    const float* bias;        // (out,) or null
};

// A row as quantised weights meet it.
struct Rounded {
    const int16_t* r;
    const float* sums;  // of r in each group
    float t;
};

// Sums of a row's groups, and zeros behind them up to a whole vector.
inline int64_t sums_width(int64_t n) { return (n / GROUP + 7) / 8 * 8; }

inline float half(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    float made;
    if (exponent == 0) {
        made = std::ldexp((float)fraction, -24);
        return sign ? -made : made;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (fraction << 13);
    std::memcpy(&made, &bits, 4);
    return made;
#endif
}

inline void round_row(const float* x, int64_t n, int16_t* r, float* sums, float* t) {
    vf most = {};
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        vf v = load(x + i);
        v = v < 0 ? -v : v;
        most = v > most ? v : most;
    }
    float largest = 0;
    for (int j = 0; j < W; j++) largest = most[j] > largest ? most[j] : largest;
    for (; i < n; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    float scale = largest > 0 ? largest / 32767.0f : 1.0f, inverse = 1.0f / scale;
    for (int64_t g = 0; g < n; g += GROUP) {
        int32_t total = 0;
        for (int64_t j = g; j < g + GROUP; j++) {
            int32_t q = (int32_t)__builtin_rintf(x[j] * inverse);
            r[j] = (int16_t)q;
            total += q;
        }
        sums[g / GROUP] = (float)total;
    }
    *t = scale;
}

constexpr int64_t PAIRS = 2 * W;

inline int64_t place_in_split(int64_t i, int64_t n) {
    if (i >= n / PAIRS * PAIRS) return i;
    return i / PAIRS * PAIRS + i % PAIRS / 2 + i % 2 * W;
}

inline void split_row(const float* x, int64_t n, float* to) {
    int64_t k = 0;
    for (; k + PAIRS <= n; k += PAIRS)
        for (int i = 0; i < W; i++) {
            to[k + i] = x[k + 2 * i];
            to[k + W + i] = x[k + 2 * i + 1];
        }
    for (; k < n; k++) to[k] = x[k];
}

constexpr int64_t AHEAD = 1024;  // bytes of weights that are called for before they are met, where there is much to do

// A weight row times M rows of x -> out[M]. One row at a time: memory is read fastest along a single stream.
template <int M>
inline void product(const float* w, int64_t in, const float* const* x, float* out) {
    constexpr int U = M == 1 ? 4 : 2, S = M == 1 ? 4 : M == 2 ? 2 : 1;  // S sums apart, so that none waits for the last
    vf s[M][S] = {};
    int64_t k = 0;
    for (; k + U * W <= in; k += U * W) {
        if (M > 2) __builtin_prefetch((const char*)(w + k) + AHEAD);
        for (int u = 0; u < U; u++) {
            vf row = load(w + k + u * W);
            for (int m = 0; m < M; m++) s[m][u % S] += row * load(x[m] + k + u * W);
        }
    }
    for (; k + W <= in; k += W)
        for (int m = 0; m < M; m++) s[m][0] += load(w + k) * load(x[m] + k);
    for (int m = 0; m < M; m++) {
        vf all = s[m][0];
        for (int i = 1; i < S; i++) all += s[m][i];
        out[m] = sum(all);
        for (int64_t i = k; i < in; i++) out[m] += w[i] * x[m][i];
    }
}

// The same for bfloat16, two of which make a word: the first is its lower half, the second its upper one. x is split so
// (`split_row`): of every 2 W channels first those that stand first in a pair, then those that stand second.
template <int M>
inline void product(const bf16* w, int64_t in, const float* const* x, float* out) {
    constexpr int U = M == 1 ? 2 : 1;
    vf s[M][2 * U] = {};
    int64_t k = 0;
    for (; k + 2 * U * W <= in; k += 2 * U * W) {
        if (M > 2) __builtin_prefetch((const char*)(w + k) + AHEAD);
        for (int u = 0; u < U; u++) {
            vu words = *(const vu_at*)(w + k + 2 * u * W);
            vf first = (vf)(words << 16), second = (vf)(words & 0xffff0000u);
            for (int m = 0; m < M; m++) {
                s[m][2 * u] += first * load(x[m] + k + 2 * u * W);
                s[m][2 * u + (M == 1)] += second * load(x[m] + k + 2 * u * W + W);
            }
        }
    }
    for (int m = 0; m < M; m++) {
        vf all = s[m][0];
        for (int u = 1; u < 2 * U; u++) all += s[m][u];
        out[m] = sum(all);
        for (int64_t i = k; i < in; i++) out[m] += widen(w[i]) * x[m][place_in_split(i, in)];
    }
}

#if defined(__AVX2__)
inline __m256i group_sums(__m256i lo, __m256i hi, const int16_t* r) {
    __m256i a = _mm256_madd_epi16(lo, _mm256_loadu_si256((const __m256i*)r));
    __m256i b = _mm256_madd_epi16(hi, _mm256_loadu_si256((const __m256i*)(r + 16)));
    return _mm256_add_epi32(a, b);
}
#endif

#if defined(__AVX2__)
struct Group {  // 32 weights as 16-bit numbers
    __m256i lo, hi;
};
template <int KIND>
inline Group open_group(const uint8_t* q) {
    if (KIND == INT8)
        return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)q)),
                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(q + 16)))};
    __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)q));
    return {_mm256_and_si256(both, _mm256_set1_epi16(15)), _mm256_srli_epi16(both, 4)};
}
#endif

inline void widen_halves(const uint16_t* h, int64_t n, float* to) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(h + i))));
#endif
    for (; i < n; i++) to[i] = half(h[i]);
}

constexpr int64_t LINE = 8;                    // what is behind a row of groups is readable so far
constexpr int64_t SCALES_AT_ONCE = 2048;       // groups of some rows whose scales are widened together

// `scales` and `offsets` are of this row's groups. What stands behind x's sums is zero, up to a whole vector.
template <int KIND, int M>
inline void rounded_product(const Weight& w, int64_t row, const float* scales, const float* offsets, const Rounded* x,
                            float* out) {
    constexpr int U = M == 1 ? 4 : M == 2 ? 2 : 1;  // independent sums, so that none waits for the last
    const int64_t groups = w.in / GROUP, width = KIND == INT8 ? GROUP : GROUP / 2;
    const uint8_t* q = (const uint8_t*)w.data + row * groups * width;
    float plain[M] = {};
    int64_t g = 0;
#if defined(__AVX2__)
    __m256 s[M][U];
    for (int m = 0; m < M; m++)
        for (int u = 0; u < U; u++) s[m][u] = _mm256_setzero_ps();
    auto add = [&](int u) {
        Group group = open_group<KIND>(q);
        __m256 scale = _mm256_broadcast_ss(scales + g);
        for (int m = 0; m < M; m++) {
            __m256 sums = _mm256_cvtepi32_ps(group_sums(group.lo, group.hi, x[m].r + g * GROUP));
            s[m][u] = _mm256_fmadd_ps(sums, scale, s[m][u]);
        }
        g++, q += width;
    };
    while (g + U <= groups)
        for (int u = 0; u < U; u++) add(u);
    while (g < groups) add(0);
    if (KIND == INT4)
        for (int64_t i = 0; i < groups; i += 8)
            for (int m = 0; m < M; m++)
                s[m][0] = _mm256_fmadd_ps(_mm256_loadu_ps(offsets + i), _mm256_loadu_ps(x[m].sums + i), s[m][0]);
#else
    for (; g < groups; g++, q += width)
        for (int m = 0; m < M; m++) {
            if (KIND == INT4) plain[m] += offsets[g] * x[m].sums[g];
            const int16_t* r = x[m].r + g * GROUP;
            int32_t total = 0;
            if (KIND == INT8)
                for (int i = 0; i < GROUP; i++) total += (int32_t)((const int8_t*)q)[i] * r[i];
            else
                for (int i = 0; i < GROUP / 2; i++)
                    total += (int32_t)(q[i] & 15) * r[i] + (int32_t)(q[i] >> 4) * r[i + GROUP / 2];
            plain[m] += scales[g] * (float)total;
        }
#endif
    for (int m = 0; m < M; m++) {
        float total = plain[m];
#if defined(__AVX2__)
        __m256 all = s[m][0];
        for (int u = 1; u < U; u++) all = _mm256_add_ps(all, s[m][u]);
        total += sum8(all);
#endif
        out[m] = total * x[m].t;
    }
}

// What becomes of a product: y = old · keep + scale · (product + bias)
struct Into {
    float* const* y;
    float keep, scale;
};

inline void put(const Into& into, int64_t row, int m, float value) {
    float* y = into.y[m] + row;
    *y = into.keep == 0 ? into.scale * value : into.keep * *y + into.scale * value;
}

template <class T, int M>
inline void float_rows(const Weight& w, int64_t from, int64_t to, const float* const* x, const Into& into) {
    for (int64_t row = from; row < to; row++) {
        float out[M];
        product<M>((const T*)w.data + row * w.in, w.in, x, out);
        for (int m = 0; m < M; m++) put(into, row, m, out[m] + (w.bias ? w.bias[row] : 0));
    }
}

template <int KIND, int M>
inline void rounded_rows(const Weight& w, int64_t from, int64_t to, const Rounded* x, const Into& into) {
    const int64_t groups = w.in / GROUP, step = groups < SCALES_AT_ONCE ? SCALES_AT_ONCE / groups : 1;
    static thread_local std::vector<float> scales, offsets;
    if ((int64_t)scales.size() < step * groups + LINE) {
        scales.resize(step * groups + LINE);
        offsets.resize(step * groups + LINE);
    }
    for (int64_t at = from; at < to; at += step) {
        const int64_t end = at + step < to ? at + step : to;
        widen_halves(w.scales + at * groups, (end - at) * groups, scales.data());
        if (KIND == INT4) widen_halves(w.offsets + at * groups, (end - at) * groups, offsets.data());
        for (int64_t row = at; row < end; row++) {
            float out[M];
            rounded_product<KIND, M>(w, row, scales.data() + (row - at) * groups, offsets.data() + (row - at) * groups, x, out);
            for (int m = 0; m < M; m++) put(into, row, m, out[m] + (w.bias ? w.bias[row] : 0));
        }
    }
}

template <int M>
inline void rows_by(const Weight& w, int64_t from, int64_t to, const float* const* x, const Rounded* r, const Into& into) {
    switch (w.kind) {
        case FLOAT32: return float_rows<float, M>(w, from, to, x, into);
        case BFLOAT16: return float_rows<bf16, M>(w, from, to, x, into);
        case INT8: return rounded_rows<INT8, M>(w, from, to, r, into);
        default: return rounded_rows<INT4, M>(w, from, to, r, into);
    }
}

constexpr int64_t NEAR = 16384;  // bytes of weights that stay in the nearest cache while further rows of x meet them

// Rows `from … to` of the product with n rows of x; split ones where weights are bfloat16, rounded where quantised.
inline void linear_rows(const Weight& w, int64_t from, int64_t to, int n, const float* const* x, const Rounded* r,
                        float* const* y, float keep, float scale) {
    const int64_t bytes = w.in * (w.kind == FLOAT32 ? 4 : w.kind == BFLOAT16 ? 2 : 1);
    const int64_t step = n <= 8 ? to - from : 1 + NEAR / (bytes + 1);
    for (int64_t at = from; at < to; at += step) {
        int64_t end = at + step < to ? at + step : to;
        int m = 0;
        for (; m + 8 <= n; m += 8) rows_by<8>(w, at, end, x + m, r + m, Into{y + m, keep, scale});
        for (; m + 4 <= n; m += 4) rows_by<4>(w, at, end, x + m, r + m, Into{y + m, keep, scale});
        switch (n - m) {
            case 3: rows_by<3>(w, at, end, x + m, r + m, Into{y + m, keep, scale}); break;
            case 2: rows_by<2>(w, at, end, x + m, r + m, Into{y + m, keep, scale}); break;
            case 1: rows_by<1>(w, at, end, x + m, r + m, Into{y + m, keep, scale}); break;
        }
    }
}

inline void store(bf16* p, vf x) {
    vu bits = (vu)x;
    *(vh_at*)p = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, vh);
}

// Row `row` of the weights in full.
template <class T>
inline void widen_row(const Weight& w, int64_t row, T* to) {
    const int64_t groups = w.in / GROUP;
    for (int64_t g = 0; g < groups; g++, to += GROUP) {
        const float scale = half(w.scales[row * groups + g]);
        if (w.kind == INT8) {
            const int8_t* q = (const int8_t*)w.data + (row * groups + g) * GROUP;
            for (int i = 0; i < GROUP; i += W)
                store(to + i, scale * __builtin_convertvector(*(const vb_at*)(q + i), vf));
        } else {
            const float offset = half(w.offsets[row * groups + g]);
            const uint8_t* q = (const uint8_t*)w.data + (row * groups + g) * (GROUP / 2);
            for (int i = 0; i < GROUP / 2; i += W) {
                vi both = __builtin_convertvector(*(const vc_at*)(q + i), vi);
                store(to + i, scale * __builtin_convertvector(both & 15, vf) + offset);
                store(to + i + GROUP / 2, scale * __builtin_convertvector(both >> 4, vf) + offset);
            }
        }
    }
}

}  // namespace lamina
