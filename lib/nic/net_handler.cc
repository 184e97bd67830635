// SPDX-License-Identifier: BSD-3-Clause
#include "net_handler.hh"

namespace viommu::nic {

uint64_t NetHandler::features() const {
    return port_.features() | uint64_t{dirty_log_} << wire::VHOST_F_LOG_ALL;
}

void NetHandler::features_acked(uint64_t features) {
    const Pause pause(*this);
    port_.features_acked(features);
}

void NetHandler::config_read(uint32_t offset, std::span<std::byte> out) {
    port_.config_read(offset, out);
}

void NetHandler::memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) {
    const Pause pause(*this);
    port_.memory_changed(std::move(memory));
}

void NetHandler::log_changed(std::shared_ptr<const virtq::DirtyLog> log) {
    const Pause pause(*this);
    port_.log_changed(std::move(log));
}

/// Or the guest's memory would stay allocated.
void NetHandler::disconnected() {
    const Pause pause(*this);
    port_.memory_changed(nullptr);
}

void NetHandler::queue_started(const virtq::Vring& vring) {
    const Pause pause(*this);
    port_.queue_started(vring);
}

uint32_t NetHandler::queue_stopped(uint16_t index, Stop) {
    const Pause pause(*this);
    return port_.queue_stopped(index);
}

}  // namespace viommu::nic
