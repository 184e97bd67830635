// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <memory>

#include "config.hh"

struct rte_mempool;

namespace viommu::app {

/// Where packets are put: a pool for each NUMA node that has lcores with net ports.
/// Threads: the main lcore; the pools, any.
class Pools {
  public:
    /// Errors: no memory; says how much is wanted.
    static Result<Pools> create(const Config& config);

    /// For a net port: on the node of its first lcore.
    rte_mempool& of(const Net& net) const;

  private:
    struct Freer {
        void operator()(rte_mempool* pool) const;
    };
    std::map<int, std::unique_ptr<rte_mempool, Freer>> by_node_;
};

/// How many packets net ports of `config` can have under way on `node` (SOCKET_ID_ANY: all).
unsigned mbufs_needed(const Config& config, int node);

}  // namespace viommu::app
