// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report.hh"

namespace viommu::app {

/// The counters of a port's queues and their totals: "net.vm0/net0.from_guest.packets", and where
/// there are several pairs "net.vm0/net0.q1.from_guest.packets", of which those that are zero are
/// left out.
class PortCounters {
  public:
    PortCounters(const std::string& prefix, uint16_t pairs) : prefix_(prefix), pairs_(pairs) {}

    /// `of`: what has for_each(f(name, value)). For each `what` pairs come in ascending order.
    template <class Of>
    void add(std::string_view what, uint16_t pair, const Of& of) {
        of.for_each([&](std::string_view name, uint64_t value) { count(what, name, pair, value); });
    }
    void print(Counters& out) const;

  private:
    struct Value {
        std::string name;  ///< "from_guest.packets"
        uint64_t value;
        uint16_t pair = 0;
    };
    void count(std::string_view what, std::string_view name, uint16_t pair, uint64_t value);

    const std::string& prefix_;
    const uint16_t pairs_;
    std::vector<Value> totals_;     ///< in the order in which they came first
    std::vector<Value> of_queues_;
};

}  // namespace viommu::app
