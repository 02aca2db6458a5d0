// Softmax attention of a few queries over the keys and values a cache holds, split along the keys among the threads.
#pragma once
#include <algorithm>
#include <vector>

#include "simd.h"

namespace lamina {

struct Attend {
    int64_t heads, kv_heads, width, value_width;  // of queries, of keys and values
    float scale, softcap;                         // softcap 0: none
};

// What one thread finds for the queries of one key head over some keys: sums o (groups, value_width) with weights
// e^(s - m), their total and m, side by side for each query head.
template <class T>
inline void attend_part(const Attend& a, const float* q, const T* k, const T* v, int64_t from, int64_t to,
                        const uint8_t* allowed, float* scores, float* found) {
    const int64_t groups = a.heads / a.kv_heads, n = to - from, stride = (n + W - 1) / W * W;
    for (int64_t g = 0; g < groups; g++) {
        float* s = scores + g * stride;
        const float* query = q + g * a.width;
        for (int64_t i = 0; i < n; i++) s[i] = dot(query, k + (from + i) * a.width, a.width) * a.scale;
        if (a.softcap > 0)
            for (int64_t i = 0; i < n; i++) s[i] = a.softcap * std::tanh(s[i] / a.softcap);
        if (allowed)
            for (int64_t i = 0; i < n; i++)
                if (!allowed[from + i]) s[i] = -INFINITY;
        float most = -INFINITY;
        for (int64_t i = 0; i < n; i++) most = s[i] > most ? s[i] : most;
        for (int64_t i = n; i < stride; i++) s[i] = -INFINITY;
        float total = 0;
        if (most == -INFINITY) {
            for (int64_t i = 0; i < stride; i++) s[i] = 0;
        } else {
            vf totals = {};
            for (int64_t i = 0; i < stride; i += W) {
                vf e = exp(load(s + i) - most);
                e = load(s + i) < -1e30f ? vf{} : e;
                store(s + i, e);
                totals += e;
            }
            total = sum(totals);
        }
        found[g * (a.value_width + 2)] = most;
        found[g * (a.value_width + 2) + 1] = total;
    }
    for (int64_t g = 0; g < groups; g++) {
        const float* p = scores + g * stride;
        float* o = found + g * (a.value_width + 2) + 2;
        int64_t d = 0;
        for (; d + 4 * W <= a.value_width; d += 4 * W) {
            vf s0 = {}, s1 = {}, s2 = {}, s3 = {};
            for (int64_t i = 0; i < n; i++) {
                const T* row = v + (from + i) * a.value_width + d;
                vf weight = splat(p[i]);
                s0 += weight * load(row);
                s1 += weight * load(row + W);
                s2 += weight * load(row + 2 * W);
                s3 += weight * load(row + 3 * W);
            }
            store(o + d, s0), store(o + d + W, s1), store(o + d + 2 * W, s2), store(o + d + 3 * W, s3);
        }
        for (; d + W <= a.value_width; d += W) {
            vf s = {};
            for (int64_t i = 0; i < n; i++) s += p[i] * load(v + (from + i) * a.value_width + d);
            store(o + d, s);
        }
        for (; d < a.value_width; d++) {
            float s = 0;
            for (int64_t i = 0; i < n; i++) s += p[i] * widen(v[(from + i) * a.value_width + d]);
            o[d] = s;
        }
    }
}

// The parts of one query head joined; `part` floats from one part to the next.
inline void attend_join(const float* found, int64_t parts, int64_t part, int64_t width, const float* sink, float* out) {
    float most = sink ? *sink : -INFINITY, total = 0;
    for (int64_t c = 0; c < parts; c++) most = found[c * part] > most ? found[c * part] : most;
    for (int64_t d = 0; d < width; d++) out[d] = 0;
    for (int64_t c = 0; c < parts; c++) {
        const float* one = found + c * part;
        float weight = one[0] == -INFINITY ? 0 : std::exp(one[0] - most);
        total += weight * one[1];
        for (int64_t d = 0; d < width; d++) out[d] += weight * one[2 + d];
    }
    if (sink) total += std::exp(*sink - most);
    for (int64_t d = 0; d < width; d++) out[d] /= total;
}

// Many queries at once, a block of them against a block of keys after the other, so that both are read from nearby:
// scores and sums are small matrix products, and the softmax is carried along from block to block.
constexpr int64_t KEYS = 64;   // in a block
constexpr int64_t ROWS = 48;   // query heads of some tokens
constexpr int TILE = 6;        // rows whose sums stay in registers

struct Bench {  // one thread's
    std::vector<float> q, k, v, s, o, most, total;
};

// c (TILE, 2 W) = or += a (TILE, n) · b (n, 2 W); strides as given
template <bool ADD>
inline void tile(const float* a, int64_t a_row, const float* b, int64_t b_row, int64_t n, float* c, int64_t c_row) {
    vf s[TILE][2];
    for (int r = 0; r < TILE; r++)
        for (int j = 0; j < 2; j++) s[r][j] = ADD ? load(c + r * c_row + j * W) : vf{};
    for (int64_t i = 0; i < n; i++) {
        vf b0 = load(b + i * b_row), b1 = load(b + i * b_row + W);
        for (int r = 0; r < TILE; r++) {
            vf x = splat(a[r * a_row + i]);
            s[r][0] += x * b0;
            s[r][1] += x * b1;
        }
    }
    for (int r = 0; r < TILE; r++)
        for (int j = 0; j < 2; j++) store(c + r * c_row + j * W, s[r][j]);
}

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Queries of `tokens` tokens, the first of which sees `seen` keys with itself, each `q_row` floats after the last, the
// heads that share a key head side by side; out likewise. `allowed` (tokens, keys) or null for all up to itself.
template <class T>
inline void attend_block(const Attend& a, Bench& bench, const float* q, int64_t q_row, int64_t tokens, int64_t seen,
                         const T* k, const T* v, int64_t keys, const uint8_t* allowed, const float* sinks, float* out,
                         int64_t out_row) {
    const int64_t groups = a.heads / a.kv_heads, rows = tokens * groups, padded = up(rows, TILE);
    const int64_t width = a.width, wide = up(a.value_width, 2 * W);
    bench.q.assign(padded * width, 0.0f), bench.o.assign(padded * wide, 0.0f), bench.s.resize(padded * KEYS);
    bench.k.resize(width * KEYS), bench.v.assign(KEYS * wide, 0.0f);
    bench.most.assign(padded, -INFINITY), bench.total.assign(padded, 0.0f);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t d = 0; d < width; d++)
                bench.q[(t * groups + g) * width + d] = q[t * q_row + g * width + d] * a.scale;
    const int64_t end = allowed ? keys : std::min(keys, seen + tokens - 1);
    for (int64_t from = 0; from < end; from += KEYS) {
        const int64_t n = std::min(KEYS, end - from);
        for (int64_t i = 0; i < n; i++)
            for (int64_t d = 0; d < width; d++) bench.k[d * KEYS + i] = widen(k[(from + i) * width + d]);
        for (int64_t i = n; i < KEYS; i++)
            for (int64_t d = 0; d < width; d++) bench.k[d * KEYS + i] = 0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t d = 0; d < a.value_width; d++) bench.v[i * wide + d] = widen(v[(from + i) * a.value_width + d]);
        for (int64_t r = 0; r < padded; r += TILE)
            for (int64_t c = 0; c < KEYS; c += 2 * W)
                tile<false>(&bench.q[r * width], width, &bench.k[c], KEYS, width, &bench.s[r * KEYS + c], KEYS);
        for (int64_t r = 0; r < rows; r++) {
            float* s = &bench.s[r * KEYS];
            const int64_t t = r / groups;
            if (a.softcap > 0)
                for (int64_t i = 0; i < n; i++) s[i] = a.softcap * std::tanh(s[i] / a.softcap);
            const int64_t visible = allowed ? n : std::clamp(seen + t - from, (int64_t)0, n);
            if (allowed)
                for (int64_t i = 0; i < n; i++)
                    if (!allowed[t * keys + from + i]) s[i] = -INFINITY;
            for (int64_t i = visible; i < KEYS; i++) s[i] = -INFINITY;
            vf tops = load(s);
            for (int64_t i = W; i < KEYS; i += W) {
                vf x = load(s + i);
                tops = x > tops ? x : tops;
            }
            float most = bench.most[r];
            for (int i = 0; i < W; i++) most = tops[i] > most ? tops[i] : most;
            if (most == -INFINITY) {
                for (int64_t i = 0; i < KEYS; i++) s[i] = 0;
                continue;
            }
            if (most > bench.most[r]) {
                const float less = bench.most[r] == -INFINITY ? 0 : std::exp(bench.most[r] - most);
                for (int64_t d = 0; d < wide; d += W) store(&bench.o[r * wide + d], less * load(&bench.o[r * wide + d]));
                bench.total[r] *= less;
                bench.most[r] = most;
            }
            vf totals = {};
            for (int64_t i = 0; i < KEYS; i += W) {
                vf x = load(s + i), e = exp(x - most);
                e = x < -1e30f ? vf{} : e;
                store(s + i, e);
                totals += e;
            }
            bench.total[r] += sum(totals);
        }
        for (int64_t r = 0; r < padded; r += TILE)
            for (int64_t c = 0; c < wide; c += 2 * W)
                tile<true>(&bench.s[r * KEYS], KEYS, &bench.v[c], wide, n, &bench.o[r * wide + c], wide);
    }
    for (int64_t r = 0; r < rows; r++) {
        const int64_t g = r % groups;
        float scale = 1, total = bench.total[r], most = bench.most[r];
        if (sinks) {  // a logit that adds nothing but takes its share
            const float top = std::max(most, sinks[g]);
            scale = most == -INFINITY ? 0 : std::exp(most - top);
            total = total * scale + std::exp(sinks[g] - top);
        }
        for (int64_t d = 0; d < a.value_width; d++)
            out[r / groups * out_row + g * a.value_width + d] = bench.o[r * wide + d] * scale / total;
    }
}

}  // namespace lamina
