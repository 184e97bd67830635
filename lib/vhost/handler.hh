// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "viommu_virtq.hh"

namespace viommu::vhost {

/// A virtio device behind a vhost-user socket. Threads: librte_vhost's event thread.
class Handler {
  public:
    enum class Stop {
        kDisabled,      ///< SET_VRING_ENABLE(0): pause; a GET_VRING_BASE after it is not reported
        kGetBase,       ///< GET_VRING_BASE: the guest reset the device, or the VM stopped
        kReconfigured,  ///< a message that changes the memory or this queue; may start again
        kDisconnected,  ///< the frontend is gone; guest memory is still mapped during the call
    };

    virtual ~Handler() = default;

    /// Feature bits offered: the device's, and VHOST_F_LOG_ALL if it keeps a dirty log; the Socket
    /// adds VHOST_USER_F_PROTOCOL_FEATURES. Asked once, at listen().
    virtual uint64_t features() const = 0;
    /// Constant. Also the answer to GET_QUEUE_NUM.
    virtual uint16_t num_queues() const = 0;

    virtual void connected() {}
    /// After every queue has been stopped with Stop::kDisconnected.
    virtual void disconnected() {}

    /// SET_FEATURES, transport bits included, as the frontend sent them; only offered bits are set.
    /// No queue is running.
    virtual void features_acked(uint64_t features) = 0;

    /// Fill `out` from configuration space; bytes beyond the structure read as zero.
    virtual void config_read(uint32_t offset, std::span<std::byte> out) = 0;
    virtual void config_write(uint32_t offset, std::span<const std::byte> in) = 0;

    /// A new memory table. No queue is running. The map keeps the memory mapped: let go of it when
    /// the next one comes, and at disconnected().
    virtual void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) = 0;

    /// The VMM wants to know (null: no longer) which pages the device writes, because it migrates
    /// the guest. No queue is running. From here on every write to guest memory, rings included, is
    /// followed by `log`'s wrote(). Comes again when the VMM changes the log or the memory.
    /// Never called unless features() has VHOST_F_LOG_ALL.
    virtual void log_changed(std::shared_ptr<const virtq::DirtyLog> log) { (void)log; }

    /// The queue has size, addresses, kick, is enabled, and there is a memory table.
    virtual void queue_started(const virtq::Vring& vring) = 0;
    /// Returns what GET_VRING_BASE answers (virtq::Vring::base). On return no thread touches the
    /// ring, guest memory through it, or its fds.
    virtual uint32_t queue_stopped(uint16_t index, Stop why) = 0;
};

}  // namespace viommu::vhost
