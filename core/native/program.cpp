// Runs a list of operations on a few rows, from one call: what decoding a token does between embedding and head.
//
// Rows are the tokens of a step, (batch, tokens) side by side. Every buffer holds float32 rows; buffer 0 is the stream,
// which the caller owns. Operations run one after the other, each by all threads.
#include <algorithm>
#include <chrono>
#include <mutex>

#include "attend.h"
#include "linear.h"
#include "pool.h"

namespace lamina {

enum Code : int32_t { NORM, ROUND, LINEAR, PLACE, SCORE, JOIN, ACTIVATE, ADD, ROUTE, EXPERTS, COMBINE, CLAMP };
enum Act : int32_t { IDENTITY, SILU, GELU, GELU_TANH, RELU, RELU2, SIGMOID, QUICK_GELU };

struct Op {
    int32_t code, kind;           // `kind`: of norm, activation, routing, and of the numbers a cache holds
    int32_t in, out, other;       // buffers
    int32_t weight, state, mask;  // indices; mask -1: all keys up to the query
    int64_t in_at, out_at, other_at, width, heads, head_width;
    int64_t kv_heads, value_width, turned, interleaved, k, experts;
    float a, b;
    const float *p, *r;
};

struct State {  // of one attention: (batch, kv_heads, capacity, width) of each
    void *k, *v;
    int64_t capacity;
};

struct Mask {  // (batch or 1, tokens, keys) bytes
    const uint8_t* allowed;
    int64_t per_row;  // bytes from one row of the batch to the next, 0 when all are alike
};

struct Run {
    int64_t batch, tokens, used;
    const int64_t* positions;  // (batch · tokens,)
    float* const* buffers;  // each with room for all rows; the first is the stream
    const State* states;
    const Mask* masks;
    int64_t first, end;  // the operations to do
    int64_t many;        // whether there are so many rows that attention takes blocks of them
};

struct Buffer {
    int64_t width, times;  // rows for each row of the stream
    float* data;
    std::vector<int16_t> r;  // the rows rounded, where quantised weights read them
    std::vector<float> sums, t;
};

struct alignas(64) Counter {
    std::atomic<int64_t> next{0};
};

inline vf act(int32_t kind, vf x) {
    switch (kind) {
        case SILU: return x / (1.0f + exp(-x));
        case SIGMOID: return 1.0f / (1.0f + exp(-x));
        case QUICK_GELU: return x / (1.0f + exp(-1.702f * x));
        case RELU: return x > 0 ? x : vf{};
        case RELU2: return x > 0 ? x * x : vf{};
        case GELU_TANH: {  // x/2 · (1 + tanh u) = x · sigmoid(2u)
            vf u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
            return x / (1.0f + exp(-2.0f * u));
        }
        case GELU:
            for (int i = 0; i < W; i++) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.7071067811865476f));
            return x;
        default: return x;
    }
}

// Rows of x as a product reads them: split where its weights are bfloat16, by each thread for itself.
inline void ready_rows(const Weight& w, std::vector<const float*>& x, int64_t n) {
    if (w.kind != BFLOAT16) return;
    static thread_local std::vector<float> split;
    if ((int64_t)split.size() < n * w.in) split.resize(n * w.in);
    for (int64_t i = 0; i < n; i++) {
        split_row(x[i], w.in, split.data() + i * w.in);
        x[i] = split.data() + i * w.in;
    }
}

class Program {
  public:
    Program(const Op* ops, int n, const Weight* weights, int n_weights, const int64_t* widths, const int64_t* times,
            int n_buffers)
        : ops_(ops, ops + n), weights_(weights, weights + n_weights), buffers_(n_buffers), counters_(n) {
        for (int i = 0; i < n_buffers; i++) {
            buffers_[i].width = widths[i];
            buffers_[i].times = times[i];
        }
    }

    void run(const Run& run, int threads) {
        run_ = run;
        threads_ = threads;
        rows_ = run.batch * run.tokens;
        for (size_t i = 0; i < buffers_.size(); i++) buffers_[i].data = run.buffers[i];
        int64_t found = 0, scores = 0;
        for (int64_t i = run.first; i < run.end; i++) {
            const Op& op = ops_[i];
            counters_[i].next.store(0, std::memory_order_relaxed);
            if (op.code == ROUND) {
                Buffer& buffer = buffers_[op.in];
                const int64_t rows = rows_ * buffer.times;
                if ((int64_t)buffer.t.size() < rows) {
                    buffer.r.resize(rows * buffer.width);
                    buffer.sums.resize(rows * sums_width(buffer.width));
                    buffer.t.resize(rows);
                }
            }
            if (op.code == SCORE && !run.many) {
                int64_t n = keys(op), part = part_of(op, n), groups = op.heads / op.kv_heads;
                found = std::max(found, rows_ * op.kv_heads * ((n + part - 1) / part) * groups * (op.value_width + 2));
                scores = std::max(scores, groups * (part + W));
            }
        }
        if ((int64_t)found_.size() < found) found_.resize(found);
        scores_per_thread_ = scores;
        if ((int64_t)scores_.size() < scores * threads) scores_.resize(scores * threads);
        Meeting meeting(threads);
        on_threads(threads, [&](int thread) { work(thread, meeting); });
    }

    // From now on the seconds each operation takes are added there; null: no longer.
    void time(double* seconds) { seconds_ = seconds; }

  private:
    void work(int thread, Meeting& meeting) {
        const bool timed = seconds_ && thread == 0;
        double since = timed ? now() : 0;
        for (int64_t i = run_.first; i < run_.end; i++) {
            execute(ops_[i], counters_[i].next, thread);
            if (i + 1 < run_.end) meeting.wait();
            if (timed) {
                double at = now();
                seconds_[i] += at - since;
                since = at;
            }
        }
    }

    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    // Calls `one(item)` for the items 0 … n - 1, each on one of the threads, `step` at a time.
    template <class F>
    void share(std::atomic<int64_t>& next, int64_t n, int64_t step, F one) {
        for (;;) {
            int64_t from = next.fetch_add(step, std::memory_order_relaxed);
            if (from >= n) return;
            one(from, std::min(from + step, n));
        }
    }

    float* row(int32_t buffer, int64_t at, int64_t channel) {
        return buffers_[buffer].data + at * buffers_[buffer].width + channel;
    }

    int64_t keys(const Op& op) const { return std::min(run_.used + run_.tokens, run_.states[op.state].capacity); }

    int64_t part_of(const Op& op, int64_t n) const {  // keys a thread takes at once
        int64_t even = (n * rows_ * op.kv_heads + 4 * threads_ - 1) / (4 * threads_);
        return std::clamp((even + 31) / 32 * 32, (int64_t)32, (int64_t)512);
    }

    Rounded rounded(int32_t buffer, int64_t at) {
        Buffer& b = buffers_[buffer];
        if (b.r.empty()) return {};
        return {b.r.data() + at * b.width, b.sums.data() + at * sums_width(b.width), b.t[at]};
    }

    void execute(const Op& op, std::atomic<int64_t>& next, int thread) {
        switch (op.code) {
            case NORM:
                share(next, rows_ * op.heads, op.heads, [&](int64_t from, int64_t to) {
                    for (int64_t at = from; at < to; at++) norm(op, at / op.heads, at % op.heads);
                });
                break;
            case ROUND:
                share(next, rows_ * buffers_[op.in].times, 1, [&](int64_t at, int64_t) {
                    Buffer& b = buffers_[op.in];
                    round_row(row(op.in, at, 0), b.width, b.r.data() + at * b.width,
                              b.sums.data() + at * sums_width(b.width), &b.t[at]);
                });
                break;
            case LINEAR: linear(op, next); break;
            case PLACE: {
                int64_t n = op.heads + 2 * op.kv_heads;
                share(next, rows_ * n, rows_ > 1 ? n : 2, [&](int64_t from, int64_t to) {
                    for (int64_t at = from; at < to; at++) place(op, at / n, at % n);
                });
                break;
            }
            case SCORE: score(op, next, thread); break;
            case JOIN:
                if (run_.many) break;
                share(next, rows_ * op.heads, std::max<int64_t>(1, op.heads / 2), [&](int64_t from, int64_t to) {
                    for (int64_t at = from; at < to; at++) join(op, at / op.heads, at % op.heads);
                });
                break;
            case ACTIVATE: activate(op, next); break;
            case ADD:
                share(next, rows_, 1, [&](int64_t at, int64_t) {
                    float *y = row(op.out, at, op.out_at), *x = row(op.in, at, op.in_at);
                    for (int64_t i = 0; i < op.width; i++) y[i] = op.a * y[i] + op.b * x[i];
                });
                break;
            case CLAMP:
                share(next, rows_, 1, [&](int64_t at, int64_t) {
                    float* x = row(op.in, at, op.in_at);
                    for (int64_t i = 0; i < op.width; i++) x[i] = std::clamp(x[i], -op.a, op.a);
                });
                break;
            case ROUTE:
                if (thread == 0) route(op);
                break;
            case EXPERTS: experts(op, next); break;
            case COMBINE:
                share(next, rows_, 1, [&](int64_t at, int64_t) {
                    float* y = row(op.out, at, op.out_at);
                    for (int64_t i = 0; i < op.width; i++) y[i] = op.a == 0 ? 0 : op.a * y[i];  // what was there may be no number
                    for (int64_t j = 0; j < op.k; j++) {
                        const float* x = row(op.in, at * op.k + j, 0);
                        float weight = op.b * weights_of_[at * op.k + j];
                        for (int64_t i = 0; i < op.width; i++) y[i] += weight * x[i];
                    }
                });
                break;
        }
    }

    void norm(const Op& op, int64_t at, int64_t head) {
        const float* x = row(op.in, at, op.in_at + head * op.width);
        float* y = row(op.out, at, op.out_at + head * op.width);
        double mean = 0, square = 0;
        if (op.kind == 1) {
            for (int64_t i = 0; i < op.width; i++) mean += x[i];
            mean /= op.width;
            for (int64_t i = 0; i < op.width; i++) square += (x[i] - mean) * (x[i] - mean);
        } else {
            square = dot(x, x, op.width);
        }
        float middle = (float)mean, scale = 1.0f / std::sqrt((float)(square / op.width) + op.a);
        for (int64_t i = 0; i < op.width; i++) y[i] = (x[i] - middle) * scale * (op.p ? op.p[i] : 1.0f) + (op.r ? op.r[i] : 0.0f);
    }

    void linear(const Op& op, std::atomic<int64_t>& next) {
        const Weight& w = weights_[op.weight];
        std::vector<const float*>& x = scratch<const float*>(rows_);
        std::vector<float*>& y = scratch<float*>(rows_);
        std::vector<Rounded>& r = scratch<Rounded>(rows_);
        for (int64_t at = 0; at < rows_; at++) {
            x[at] = row(op.in, at, op.in_at);
            y[at] = row(op.out, at, op.out_at);
            r[at] = rounded(op.in, at);
        }
        ready_rows(w, x, rows_);
        share(next, w.out, chunk(w.out), [&](int64_t from, int64_t to) {
            linear_rows(w, from, to, (int)rows_, x.data(), r.data(), y.data(), op.a, op.b);
        });
    }

    int64_t chunk(int64_t n) const { return std::max<int64_t>(12, (n / (8 * threads_) + 11) / 12 * 12); }

    template <class T>
    static std::vector<T>& scratch(size_t n) {
        static thread_local std::vector<T> made;
        if (made.size() < n) made.resize(n);
        return made;
    }

    // Turns one head of a query, or turns and keeps one of a key, or keeps one of a value.
    void place(const Op& op, int64_t at, int64_t head) {
        int64_t values = op.heads + op.kv_heads;
        float* x = row(op.in, at, head < values ? head * op.head_width
                                                : values * op.head_width + (head - values) * op.value_width);
        if (head < values && op.turned) {
            int64_t half = op.turned / 2, position = run_.positions[at];
            const float *cos = op.p + position * half, *sin = op.r + position * half;
            int64_t apart = op.interleaved ? 1 : half, step = op.interleaved ? 2 : 1;
            for (int64_t i = 0; i < half; i++) {
                float first = x[i * step], second = x[i * step + apart];
                x[i * step] = first * cos[i] - second * sin[i];
                x[i * step + apart] = second * cos[i] + first * sin[i];
            }
        }
        if (head < op.heads || op.state < 0) return;
        const State& state = run_.states[op.state];
        int64_t row_of = at / run_.tokens, slot = (run_.used + at % run_.tokens) % state.capacity;
        bool value = head >= values;
        int64_t kv = head - (value ? values : op.heads), width = value ? op.value_width : op.head_width;
        int64_t to = ((row_of * op.kv_heads + kv) * state.capacity + slot) * width;
        if (op.kind == BFLOAT16)
            for (int64_t i = 0; i < width; i++) narrow(x[i], (bf16*)(value ? state.v : state.k) + to + i);
        else
            for (int64_t i = 0; i < width; i++) narrow(x[i], (float*)(value ? state.v : state.k) + to + i);
    }

    void score(const Op& op, std::atomic<int64_t>& next, int thread) {
        if (run_.many)
            return op.kind == BFLOAT16 ? blocks<bf16>(op, next) : blocks<float>(op, next);
        const Attend a{op.heads, op.kv_heads, op.head_width, op.value_width, op.a, op.b};
        const State& state = run_.states[op.state];
        const int64_t n = keys(op), part = part_of(op, n), parts = (n + part - 1) / part, groups = op.heads / op.kv_heads;
        float* scores = scores_.data() + thread * scores_per_thread_;
        share(next, rows_ * op.kv_heads * parts, 1, [&](int64_t item, int64_t) {
            int64_t c = item % parts, kv = item / parts % op.kv_heads, at = item / parts / op.kv_heads;
            int64_t b = at / run_.tokens, t = at % run_.tokens;
            int64_t end = op.mask < 0 ? std::min(n, run_.used + t + 1) : n;
            int64_t from = std::min(c * part, end), to = std::min(from + part, end);
            const uint8_t* allowed = nullptr;
            if (op.mask >= 0 && run_.masks[op.mask].allowed)
                allowed = run_.masks[op.mask].allowed + b * run_.masks[op.mask].per_row + t * n;
            else
                end = std::min(n, run_.used + t + 1), from = std::min(c * part, end), to = std::min(from + part, end);
            const float* q = row(op.in, at, kv * groups * op.head_width);
            float* found = found_.data() + item * groups * (op.value_width + 2);
            int64_t base = (b * op.kv_heads + kv) * state.capacity;
            if (op.kind == BFLOAT16)
                attend_part(a, q, (const bf16*)state.k + base * op.head_width, (const bf16*)state.v + base * op.value_width,
                            from, to, allowed, scores, found);
            else
                attend_part(a, q, (const float*)state.k + base * op.head_width,
                            (const float*)state.v + base * op.value_width, from, to, allowed, scores, found);
        });
    }

    template <class T>
    void blocks(const Op& op, std::atomic<int64_t>& next) {
        const Attend a{op.heads, op.kv_heads, op.head_width, op.value_width, op.a, op.b};
        const State& state = run_.states[op.state];
        const Mask& mask = run_.masks[op.mask];
        const int64_t n = keys(op), groups = op.heads / op.kv_heads, tokens = std::max<int64_t>(1, ROWS / groups);
        const int64_t per = (run_.tokens + tokens - 1) / tokens;
        static thread_local Bench bench;
        share(next, run_.batch * op.kv_heads * per, 1, [&](int64_t item, int64_t) {
            // The last tokens, which see most, come first.
            const int64_t t = (per - 1 - item % per) * tokens, kv = item / per % op.kv_heads, b = item / per / op.kv_heads;
            const int64_t at = b * run_.tokens + t, base = (b * op.kv_heads + kv) * state.capacity;
            attend_block<T>(a, bench, row(op.in, at, kv * groups * op.head_width), buffers_[op.in].width,
                            std::min(tokens, run_.tokens - t), run_.used + t + 1, (const T*)state.k + base * op.head_width,
                            (const T*)state.v + base * op.value_width, n,
                            mask.allowed ? mask.allowed + b * mask.per_row + t * n : nullptr,
                            op.p ? op.p + kv * groups : nullptr, row(op.out, at, kv * groups * op.value_width),
                            buffers_[op.out].width);
        });
    }

    void join(const Op& op, int64_t at, int64_t head) {
        const int64_t n = keys(op), part = part_of(op, n), parts = (n + part - 1) / part, groups = op.heads / op.kv_heads;
        const int64_t one = groups * (op.value_width + 2);
        const float* found = found_.data() + (at * op.kv_heads + head / groups) * parts * one + head % groups * (op.value_width + 2);
        attend_join(found, parts, one, op.value_width, op.p ? op.p + head : nullptr, row(op.out, at, head * op.value_width));
    }

    void activate(const Op& op, std::atomic<int64_t>& next) {
        const int64_t step = 256, per_row = (op.width + step - 1) / step;
        share(next, rows_ * buffers_[op.in].times * per_row, 1, [&](int64_t item, int64_t) {
            int64_t at = item / per_row, from = item % per_row * step, to = std::min(from + step, op.width), i = from;
            const float *x = row(op.in, at, op.in_at), *other = op.other < 0 ? nullptr : row(op.other, at, op.other_at);
            float* y = row(op.out, at, op.out_at);
            for (; i + W <= to; i += W) {
                vf v = act(op.kind, op.a * load(x + i));
                store(y + i, other ? v * load(other + i) : v);
            }
            if (i < to) {
                vf v = {};
                for (int64_t j = i; j < to; j++) v[j - i] = op.a * x[j];
                v = act(op.kind, v);
                for (int64_t j = i; j < to; j++) y[j] = other ? v[j - i] * other[j] : v[j - i];
            }
        });
    }

    // Chooses each row's experts: kind 0 the best of softmax(logits), renormalised when a; 1 softmax of the best.
    void route(const Op& op) {
        int64_t pairs = rows_ * op.k;
        chosen_.resize(pairs), weights_of_.resize(pairs), by_expert_.resize(pairs), ends_.assign(op.experts + 1, 0);
        for (int64_t at = 0; at < rows_; at++) {
            const float* logits = row(op.in, at, op.in_at);
            order_.resize(op.experts);
            for (int64_t e = 0; e < op.experts; e++) order_[e] = (int32_t)e;
            std::partial_sort(order_.begin(), order_.begin() + op.k, order_.end(), [&](int32_t i, int32_t j) {
                return logits[i] != logits[j] ? logits[i] > logits[j] : i < j;
            });
            float most = logits[order_[0]], total = 0, sum = 0;
            for (int64_t e = 0; e < op.experts; e++) total += std::exp(logits[e] - most);
            for (int64_t j = 0; j < op.k; j++) sum += std::exp(logits[order_[j]] - most);
            for (int64_t j = 0; j < op.k; j++) {
                chosen_[at * op.k + j] = order_[j];
                weights_of_[at * op.k + j] = op.b * std::exp(logits[order_[j]] - most) / (op.kind || op.a ? sum : total);
                ends_[order_[j] + 1]++;
            }
        }
        present_.clear();
        for (int64_t e = 0; e < op.experts; e++) {
            if (ends_[e + 1]) present_.push_back((int32_t)e);
            ends_[e + 1] += ends_[e];
        }
        cursor_.assign(ends_.begin(), ends_.end());
        for (int64_t pair = 0; pair < pairs; pair++) by_expert_[cursor_[chosen_[pair]]++] = (int32_t)pair;
    }

    // Each chosen expert's product with the rows that chose it; `other` 1: rows are the choices', 0: the tokens'.
    void experts(const Op& op, std::atomic<int64_t>& next) {
        int64_t out = weights_[op.weight].out, step = chunk(out * (int64_t)present_.size()), per = (out + step - 1) / step;
        share(next, (int64_t)present_.size() * per, 1, [&](int64_t item, int64_t) {
            int32_t expert = present_[item / per];
            int64_t first = ends_[expert], n = ends_[expert + 1] - first, from = item % per * step;
            std::vector<const float*>& x = scratch<const float*>(n);
            std::vector<float*>& y = scratch<float*>(n);
            std::vector<Rounded>& r = scratch<Rounded>(n);
            for (int64_t i = 0; i < n; i++) {
                int64_t pair = by_expert_[first + i], at = op.other ? pair : pair / op.k;
                x[i] = row(op.in, at, op.in_at);
                y[i] = row(op.out, pair, op.out_at);
                r[i] = rounded(op.in, at);
            }
            ready_rows(weights_[op.weight + expert], x, n);
            linear_rows(weights_[op.weight + expert], from, std::min(from + step, out), (int)n, x.data(), r.data(), y.data(), 0, op.b);
        });
    }

    std::vector<Op> ops_;
    std::vector<Weight> weights_;
    std::vector<Buffer> buffers_;
    std::vector<Counter> counters_;
    std::vector<float> found_, scores_;
    int64_t scores_per_thread_ = 0, rows_ = 0;
    Run run_{};
    int threads_ = 1;
    double* seconds_ = nullptr;
    std::vector<int32_t> chosen_, by_expert_, present_, order_;
    std::vector<int64_t> ends_, cursor_;
    std::vector<float> weights_of_;
};

std::mutex lock;

}  // namespace lamina

using namespace lamina;

extern "C" {

int64_t lamina_sizes(int which) {  // the caller's structures must be these
    const int64_t sizes[] = {sizeof(Op), sizeof(Weight), sizeof(State), sizeof(Mask), sizeof(Run)};
    return sizes[which];
}

void* lamina_program(const Op* ops, int n, const Weight* weights, int n_weights, const int64_t* widths,
                     const int64_t* times, int n_buffers) {
    return new Program(ops, n, weights, n_weights, widths, times, n_buffers);
}

void lamina_program_free(void* program) { delete (Program*)program; }

void lamina_program_time(void* program, double* seconds) { ((Program*)program)->time(seconds); }

void lamina_program_run(void* program, const Run* run, int threads) {
    std::lock_guard<std::mutex> guard(lock);
    ((Program*)program)->run(*run, threads);
}

// y (n, out) = x (n, in) · weightᵀ + bias
void lamina_linear(const Weight* weight, const float* x, int64_t n, float* y, int threads) {
    std::lock_guard<std::mutex> guard(lock);
    const Weight& w = *weight;
    std::vector<const float*> xs(n);
    std::vector<float*> ys(n);
    std::vector<Rounded> rounded(n);
    std::vector<int16_t> r;
    std::vector<float> sums;
    for (int64_t i = 0; i < n; i++) xs[i] = x + i * w.in, ys[i] = y + i * w.out;
    if (w.kind >= INT8) {
        r.resize(n * w.in), sums.resize(n * sums_width(w.in));
        for (int64_t i = 0; i < n; i++) {
            rounded[i] = {r.data() + i * w.in, sums.data() + i * sums_width(w.in), 0};
            round_row(xs[i], w.in, r.data() + i * w.in, sums.data() + i * sums_width(w.in), &rounded[i].t);
        }
    }
    const int64_t step = std::max<int64_t>(12, (w.out / (16 * threads) + 11) / 12 * 12);
    std::atomic<int64_t> next{0};
    on_threads(threads, [&](int) {
        std::vector<const float*> mine(xs);
        ready_rows(w, mine, n);
        for (int64_t from; (from = next.fetch_add(step)) < w.out;)
            linear_rows(w, from, std::min(from + step, w.out), (int)n, mine.data(), rounded.data(), ys.data(), 0, 1);
    });
}

// The quantised weights in full, float32 or bfloat16.
void lamina_widen(const Weight* weight, void* to, int kind, int threads) {
    std::lock_guard<std::mutex> guard(lock);
    const Weight& w = *weight;
    std::atomic<int64_t> next{0};
    on_threads(threads, [&](int) {
        for (int64_t from; (from = next.fetch_add(16)) < w.out;)
            for (int64_t row = from; row < std::min(from + 16, w.out); row++)
                if (kind == BFLOAT16)
                    widen_row(w, row, (bf16*)to + row * w.in);
                else
                    widen_row(w, row, (float*)to + row * w.in);
    });
}

}
