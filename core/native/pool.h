// Threads that work through one list of tasks together. They spin between tasks, which come microseconds apart.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

namespace lamina {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Where all threads of a list wait for each other.
class Meeting {
  public:
    explicit Meeting(int n) : n_(n) {}

    void wait() {
        if (n_ == 1) return;
        unsigned now = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == n_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; phase_.load(std::memory_order_acquire) == now; spins++) {
            if (spins < 20000)
                relax();
            else
                std::this_thread::yield();  // more threads than processors are free
        }
    }

  private:
    const int n_;
    std::atomic<unsigned> phase_{0};
    std::atomic<int> arrived_{0};
};

// job(thread) on each of n threads. Those are OpenMP's, which torch works with too: two sets of threads that spin
// between their tasks would take the processors from each other.
template <class Job>
void on_threads(int n, Job job) {
#if defined(_OPENMP)
#pragma omp parallel num_threads(n)
    {
#pragma omp for schedule(static, 1)
        for (int thread = 0; thread < n; thread++) job(thread);
    }
#else
    std::vector<std::thread> others;
    for (int thread = 1; thread < n; thread++) others.emplace_back(job, thread);
    job(0);
    for (auto& other : others) other.join();
#endif
}

}  // namespace lamina
