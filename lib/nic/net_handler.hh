// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "viommu_net.hh"
#include "viommu_vhost.hh"

namespace viommu::nic {

/// A NetPort as what is behind a vhost-user socket. Whoever polls the port keeps its lcores out of
/// it while the frontend changes something: that is what pause() and resume() are for.
///
/// Threads: as vhost::Handler's. pause() and resume() come in pairs, on one thread, not nested.
class NetHandler : public vhost::Handler {
  public:
    /// `dirty_log`: offer VHOST_F_LOG_ALL, without which a VMM does not migrate the guest.
    NetHandler(net::NetPort& port, bool dirty_log) : port_(port), dirty_log_(dirty_log) {}

    uint64_t features() const override;
    uint16_t num_queues() const override { return port_.num_queues(); }
    void features_acked(uint64_t features) override;
    void config_read(uint32_t offset, std::span<std::byte> out) override;
    void config_write(uint32_t, std::span<const std::byte>) override {}  // nothing is writable
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) override;
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log) override;
    void disconnected() override;
    void queue_started(const virtq::Vring& vring) override;
    uint32_t queue_stopped(uint16_t index, Stop why) override;

  protected:
    /// On return no thread is in a packet method of the port, and none enters one before resume().
    virtual void pause() = 0;
    /// wake_fds() may be others than before.
    virtual void resume() = 0;

    net::NetPort& port() noexcept { return port_; }

  private:
    class Pause {
      public:
        explicit Pause(NetHandler& handler) : handler_(handler) { handler_.pause(); }
        ~Pause() { handler_.resume(); }
        Pause(const Pause&) = delete;
        Pause& operator=(const Pause&) = delete;

      private:
        NetHandler& handler_;
    };

    net::NetPort& port_;
    const bool dirty_log_;
};

}  // namespace viommu::nic
