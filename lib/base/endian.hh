// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace viommu {

/// A little-endian integer as it lies in a wire structure: byte aligned, trivially copyable.
/// On the little-endian machines DPDK and vhost-user run on, reading one is a plain load.
template <class T>
struct le {
    static_assert(std::is_unsigned_v<T>);
    static_assert(std::endian::native == std::endian::little,
                  "add byte swaps here to build for a big-endian machine");

    le() = default;
    constexpr le(T v) {  // NOLINT: conversion both ways is the purpose
        for (auto& b : bytes_) {
            b = uint8_t(v);
            if constexpr (sizeof(T) > 1) v = T(v >> 8);
        }
    }
    operator T() const {  // NOLINT
        T v;
        std::memcpy(&v, bytes_, sizeof v);
        return v;
    }

  private:
    uint8_t bytes_[sizeof(T)];
};

using le16 = le<uint16_t>;
using le32 = le<uint32_t>;
using le64 = le<uint64_t>;

}  // namespace viommu
