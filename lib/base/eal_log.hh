// SPDX-License-Identifier: BSD-3-Clause
/// Lines in EAL's log. Not part of viommu_base.hh: it takes DPDK.
#pragma once

#include <fmt/format.h>
#include <rte_log.h>

#include <string>
#include <utility>

namespace viommu {

/// One of EAL's log types, called as a function.
/// Threads: any.
class EalLog {
  public:
    /// `name`: as --log-level=NAME:debug has it. At first, RTE_LOG_INFO and graver are shown.
    explicit EalLog(const char* name)
        : registered_(rte_log_register_type_and_pick_level(name, RTE_LOG_INFO)) {}

    template <class... Args>
    void operator()(uint32_t level, fmt::format_string<Args...> format, Args&&... args) const {
        if (!rte_log_can_log(type(), level)) return;
        const std::string text = fmt::format(format, std::forward<Args>(args)...);
        rte_log(level, type(), "VIOMMU: %s\n", text.c_str());
    }

  private:
    uint32_t type() const {
        return registered_ < 0 ? uint32_t(RTE_LOGTYPE_USER1) : uint32_t(registered_);
    }

    const int registered_;
};

}  // namespace viommu
