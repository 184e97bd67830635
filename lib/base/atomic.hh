// SPDX-License-Identifier: BSD-3-Clause
/// The atomics of words that a table's writer and its readers share.
///
/// They are std::atomic, unless the build names another header: -DVIOMMU_ATOM='"atom.hh"'. The model
/// test (test/model) compiles lib/table and lib/xlate once more with one whose every access is a
/// decision of its scheduler. Whatever a reader and a writer both touch is therefore spelt Atomic<T>,
/// and every full fence between them full_fence().
#pragma once

#include <atomic>

#ifdef VIOMMU_ATOM
#include VIOMMU_ATOM
#endif

namespace viommu {

#ifdef VIOMMU_ATOM
template <class T>
using Atomic = model::Atom<T>;

inline void full_fence() noexcept { model::full_fence(); }
#else
template <class T>
using Atomic = std::atomic<T>;

/// Every access before it comes before every access after it, stores before loads included.
inline void full_fence() noexcept {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    // gcc makes the same of the fence below; clang makes an mfence, which takes longer. Away from the
    // top of the stack, as in DPDK's rte_smp_mb(): no dependency on what was just pushed.
    asm volatile("lock addl $0, -128(%%rsp)" ::: "memory", "cc");
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}
#endif

}  // namespace viommu
