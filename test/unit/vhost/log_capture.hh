// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_log.h>

#include <cstdio>
#include <string>

namespace viommu::vhost::test {

/// What DPDK's log says while this lives, from viommu.vhost only.
class LogCapture {
  public:
    LogCapture() {
        rte_openlog_stream(file_);
        rte_log_set_level_pattern("viommu.vhost", RTE_LOG_INFO);
        rte_log_set_global_level(RTE_LOG_INFO);
    }
    ~LogCapture() {
        rte_openlog_stream(nullptr);
        rte_log_set_global_level(RTE_LOG_EMERG);
        rte_log_set_level_pattern("viommu.vhost", RTE_LOG_EMERG);
        std::fclose(file_);
    }
    LogCapture(const LogCapture&) = delete;
    LogCapture& operator=(const LogCapture&) = delete;

    bool has(const std::string& text) const {
        std::string said;
        char part[4096];
        std::FILE* const again = std::fopen(path().c_str(), "r");
        if (again == nullptr) return false;
        while (const size_t n = std::fread(part, 1, sizeof part, again)) said.append(part, n);
        std::fclose(again);
        return said.find(text) != std::string::npos;
    }

  private:
    /// DPDK flushes after each line, so a second look at the file sees it all.
    std::string path() const { return "/proc/self/fd/" + std::to_string(fileno(file_)); }
    std::FILE* file_ = std::tmpfile();
};

}  // namespace viommu::vhost::test
