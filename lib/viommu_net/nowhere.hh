// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "viommu_xlate.hh"

namespace viommu::program {

/// A table in which one endpoint is attached to nothing: every translation is a fault, of which
/// nobody is told. What a port has while there is no daemon: nothing that the guest's own table
/// said is used any more, and a queue waits as it does for an endpoint that is detached.
/// Threads: a control thread. Outlives its readers.
class Nowhere {
  public:
    static Result<std::unique_ptr<Nowhere>> create(EndpointId endpoint, unsigned readers);

    /// Errors: `readers` of create() are there.
    Result<xlate::Reader> reader() { return xlate::Reader::create(*table_, silence_, endpoint_); }

  private:
    struct Silence final : xlate::FaultSink {
        bool push(const xlate::Fault&) noexcept override { return false; }
    };
    Nowhere(std::unique_ptr<table::Table> table, EndpointId endpoint)
        : table_(std::move(table)), endpoint_(endpoint) {}

    std::unique_ptr<table::Table> table_;
    Silence silence_;
    const EndpointId endpoint_;
};

}  // namespace viommu::program
