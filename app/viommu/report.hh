// SPDX-License-Identifier: BSD-3-Clause
/// What the daemon prints: what it serves, and its counters.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config.hh"

namespace viommu::app {

/// What `config` serves, for people. `features`: what each guest's device offers, or empty where
/// that is not known.
std::string describe(const Config& config, std::span<const uint64_t> features);

/// Counters in the order in which they are added: one "<dotted name> <value>" per line, and
/// headings that begin with "#".
class Counters {
  public:
    void heading(std::string_view text);
    /// "<prefix>.<name> <value>"
    void add(std::string_view prefix, std::string_view name, uint64_t value);
    const std::string& text() const { return text_; }

  private:
    std::string text_;
};

/// guest.<name>.requests, .status, .quota, .faults, .table
void add_device(Counters& out, const std::string& guest, const device::Device::Stats& stats,
                uint64_t faults_lost, const table::Table::Usage& usage);
/// lcore.<id>
void add_poller(Counters& out, unsigned lcore, const poll::Poller::Stats& stats);

}  // namespace viommu::app
