// SPDX-License-Identifier: BSD-3-Clause
#include "port.hh"

namespace viommu::app {

struct NetService::Impl {};

Result<std::unique_ptr<NetService>> NetService::create(const Guest& guest, const Net& net,
                                                       device::Device&, rte_mempool&) {
    return fail("net port {}/{}: lib/net is not there yet; leave [[guest.net]] out", guest.name,
                net.name);
}
NetService::~NetService() = default;
PacketEnd& NetService::end() { std::abort(); }
void NetService::drive_with(Patch&, poll::Poller&) {}
Result<void> NetService::listen() { return {}; }
void NetService::close() {}
const std::string& NetService::counter_prefix() const { std::abort(); }
void NetService::add_counters(Counters&) const {}
uint64_t NetService::lost_faults() const { return 0; }

}  // namespace viommu::app
