// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>
#include <rte_log.h>

#include <string>
#include <utility>

namespace viommu::program {

/// EAL's log type "viommu.net".
extern const int kLogType;

template <class... Args>
void log(uint32_t level, fmt::format_string<Args...> format, Args&&... args) {
    if (!rte_log_can_log(uint32_t(kLogType), level)) return;
    const std::string text = fmt::format(format, std::forward<Args>(args)...);
    rte_log(level, uint32_t(kLogType), "VIOMMU: %s\n", text.c_str());
}

}  // namespace viommu::program
