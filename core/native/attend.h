// Softmax attention of a few queries over the keys and values a cache holds, split along the keys among the threads.
#pragma once
#include "simd.h"

namespace lamina {

struct Attend {
    int64_t heads, kv_heads, width, value_width;  // of queries, of keys and values
    float scale, softcap;                         // softcap 0: none
    const float* sinks;                           // (heads,) or null
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

}  // namespace lamina
