// SPDX-License-Identifier: BSD-3-Clause
#include "harness.hh"

#include <algorithm>
#include <cstdlib>

namespace viommu::perf {

std::vector<Measured> measure(const std::vector<Subject>& subjects, const Pace& pace) {
    constexpr unsigned kLeast = 3;
    const size_t count = subjects.size();
    std::vector<std::vector<double>> values(count), cpu(count);
    for (const Subject& subject : subjects) (void)subject.sample();  // warm-up

    const uint64_t end = Clock::ticks() + Clock::ticks_in(pace.seconds * 1e9);
    for (unsigned round = 0; round < std::max(pace.samples, kLeast); ++round) {
        if (round >= kLeast && Clock::ticks() > end) break;
        for (size_t i = 0; i < count; ++i) {
            const size_t at = (i + round) % count;
            const Sample sample = subjects[at].sample();
            values[at].push_back(sample.value);
            if (!std::isnan(sample.cpu)) cpu[at].push_back(sample.cpu);
        }
    }
    std::vector<Measured> measured;
    for (size_t i = 0; i < count; ++i) {
        measured.push_back({subjects[i].name, summarize(std::move(values[i])), {}});
        if (!cpu[i].empty()) measured.back().cpu = summarize(std::move(cpu[i]));
    }
    return measured;
}

const Measured& find(const std::vector<Measured>& all, const std::string& name) {
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const Measured& m) { return m.name == name; });
    if (found == all.end()) std::abort();  // our own mistake
    return *found;
}

size_t operations_for(const Pace& pace, size_t step, const std::function<void(size_t)>& run) {
    for (size_t n = step;; n *= 2) {
        const uint64_t start = Clock::ticks();
        run(n);
        const double ns = Clock::ns(Clock::ticks() - start);
        if (ns < pace.sample_ns / 8) continue;
        const auto wanted = size_t(double(n) * pace.sample_ns / ns);
        return std::max(wanted / step * step, step);
    }
}

}  // namespace viommu::perf
