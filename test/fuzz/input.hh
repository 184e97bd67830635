// SPDX-License-Identifier: BSD-3-Clause
/// What every fuzz target stands on: bytes turned into decisions, and checks that end the process.
///
/// A target is `extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t)`; it returns 0, and a
/// broken promise of the code under test is a crash. The same file is linked with libFuzzer, or
/// with corpus_main.cc.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <span>
#include <type_traits>
#include <vector>

namespace viommu::fuzz {

/// A fuzz input, read from its front. At the end everything is zero. Decisions take whole bytes, so
/// that a byte that libFuzzer inserts, removes or changes alters little of what follows.
class Input {
  public:
    Input(const uint8_t* data, size_t size) : rest_(data, size) {}

    bool empty() const { return rest_.empty(); }
    size_t left() const { return rest_.size(); }

    template <class T = uint8_t>
    T take() {
        static_assert(std::is_unsigned_v<T>);
        T value = 0;
        const size_t n = std::min(sizeof value, rest_.size());
        if (n > 0) std::memcpy(&value, rest_.data(), n);
        rest_ = rest_.subspan(n);
        return value;
    }
    /// Below `n`, of one byte. n <= 256.
    unsigned below(unsigned n) { return take<uint8_t>() % n; }
    /// True in one of `n` cases; false at the end of the input.
    bool one_in(unsigned n) { return below(n) == n - 1; }
    template <class T>
    T one_of(std::initializer_list<T> values) {
        return values.begin()[below(unsigned(values.size()))];
    }
    std::vector<std::byte> bytes(size_t n) {
        n = std::min(n, rest_.size());
        const auto* at = reinterpret_cast<const std::byte*>(rest_.data());
        rest_ = rest_.subspan(n);
        return {at, at + n};
    }

  private:
    std::span<const uint8_t> rest_;
};

/// Called before a finding ends the process.
inline void (*on_finding)() = [] {};

/// The finding of a target: say it and end.
template <class... Args>
[[noreturn]] void found(fmt::format_string<Args...> format, Args&&... args) {
    fmt::print(stderr, "fuzz: FINDING: {}\n", fmt::format(format, std::forward<Args>(args)...));
    on_finding();
    std::abort();
}

/// A promise of the code under test.
template <class... Args>
void require(bool kept, fmt::format_string<Args...> format, Args&&... args) {
    if (!kept) [[unlikely]]
        found(format, std::forward<Args>(args)...);
}

}  // namespace viommu::fuzz
