// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "viommu_xlate.hh"

/// One signature for all, so that one piece of assembly can call them.
using HotFunction = void(viommu::xlate::Reader&, const uint64_t* iova, viommu::xlate::Translation*);

/// Addresses in a burst.
constexpr unsigned kHotBurst = 32;

extern "C" {
HotFunction hot_translate, hot_burst, hot_enter, hot_leave;
HotFunction bad_lock, bad_xchg, bad_call, bad_tail_call, bad_chain, good_chain;
}
