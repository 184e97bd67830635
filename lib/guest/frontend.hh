// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>

#include "channel.hh"
#include "dirty_log.hh"
#include "ring.hh"

namespace viommu::guest {

/// Whose order of messages, and whose habits.
enum class Vmm {
    /// rust-vmm's crate vhost as Cloud Hypervisor uses it: NEED_REPLY on everything after
    /// SET_PROTOCOL_FEATURES; ADDR, BASE, CALL, KICK; the base is read from the ring, wherever the
    /// frontend thinks that is.
    kCloudHypervisor,
    /// SET_OWNER late; a masked CALL fd and ENABLE before there are rings; NUM, BASE, ADDR, KICK,
    /// CALL; the base is remembered from GET_VRING_BASE; GET_* without NEED_REPLY; with
    /// CONFIGURE_MEM_SLOTS it tells differences of the memory table only.
    kQemu,
};

/// What SET_VRING_ADDR carries (doc/architecture.md, "Ring addresses").
enum class RingAddresses {
    /// The VMM knows nothing of the IOMMU ("aperture"): it takes the guest's ring IOVAs for GPAs
    /// and
    /// sends UVA(IOVA). They must lie inside RAM. VIRTIO_F_ACCESS_PLATFORM never reaches the
    /// backend.
    kUva,
    /// The VMM knows: raw IOVAs, and VIRTIO_F_ACCESS_PLATFORM in SET_FEATURES.
    kIova,
};

struct FrontendOptions {
    std::string socket;
    Milliseconds timeout{5000};
    Vmm vmm = Vmm::kCloudHypervisor;
    RingAddresses ring_addresses = RingAddresses::kUva;
    uint16_t queues = 2;  ///< the VMM's `queue_sizes`: how many the device must have
    uint64_t protocol_features =
        bit(wire::VHOST_USER_PROTOCOL_F_MQ) | bit(wire::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
        bit(wire::VHOST_USER_PROTOCOL_F_BACKEND_REQ) | bit(wire::VHOST_USER_PROTOCOL_F_CONFIG) |
        bit(wire::VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
        bit(wire::VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
};

/// A queue as the guest's driver programmed it.
struct QueueSetup {
    uint16_t index = 0;
    uint16_t size = 0;
    BusAddress desc, avail, used;
    int kick_fd = -1;
    int call_fd = -1;  ///< -1: the driver assigned no interrupt, and no SET_VRING_CALL is sent
    std::optional<uint32_t> base{};  ///< unset: what the VMM would send
};

/// The VMM's end of a vhost-user connection.
///
/// Source:  rust-vmm's crate vhost, vhost_user/frontend.rs; Cloud Hypervisor's use of it; QEMU's
///          docs/interop/vhost-user.rst
/// Errors:  every call names the message, and what was wrong with the answer. Replies must have
///          exactly the size of their type: where Cloud Hypervisor would block for ever, or lose
///          track of the stream, this is an error.
/// Threads: one.
class Frontend {
  public:
    /// Connect and negotiate, as a VMM does before its guest boots.
    static Result<Frontend> connect(const FrontendOptions& options);
    /// As after the backend went away. Nothing of the guest's is sent until activate().
    Result<void> reconnect();
    void disconnect();

    const FrontendOptions& options() const { return options_; }
    uint64_t features() const { return features_; }  ///< what the backend offers, bit 30 included
    uint64_t protocol_features() const { return protocol_features_; }  ///< negotiated
    uint64_t queue_num() const { return queue_num_; }                  ///< 0: not asked, without MQ

    Result<void> read_config(uint32_t offset, std::span<std::byte> out, uint32_t flags = 0);
    Result<void> write_config(uint32_t offset, std::span<const std::byte> in);

    /// DRIVER_OK: SET_FEATURES to the last SET_VRING_ENABLE. `acked`: the driver's feature bits.
    Result<void> activate(uint64_t acked, const Memory& memory, std::span<const QueueSetup> queues);
    /// Device reset: ENABLE(0) and GET_VRING_BASE of every queue. Returns the bases.
    Result<std::vector<uint32_t>> reset();

    /// The VM is paused. Cloud Hypervisor: ENABLE(0). QEMU's `stop`: ENABLE(0) of all queues, then
    /// GET_VRING_BASE of all.
    Result<void> pause();
    /// It goes on. Cloud Hypervisor: ENABLE(1). QEMU's `cont`: activation again, each queue with
    /// the base that GET_VRING_BASE answered.
    Result<void> resume();
    /// The driver resets one queue (VIRTIO_F_RING_RESET): GET_VRING_BASE, which is returned.
    Result<uint32_t> stop_queue(uint16_t index);
    /// A queue that was stopped begins anew, with other addresses and another size.
    Result<void> start_queue(const QueueSetup& queue);

    /// Also for memory that changes while queues run.
    Result<void> set_mem_table(const Memory& memory);
    Result<void> set_mem_table(std::span<const MemoryRegion> regions, int fd);
    /// Memory is plugged in: ADD_MEM_REG where the backend can, else the whole table.
    Result<void> add_memory(const MemoryRegion& region, int fd);
    Result<void> set_features(uint64_t acked);
    Result<void> set_vring(const QueueSetup& queue);  ///< all of a queue but ENABLE
    Result<void> enable(uint16_t queue, bool on);
    Result<uint32_t> get_vring_base(uint16_t queue);

    /// Live migration begins: SET_LOG_BASE, SET_FEATURES with LOG_ALL, SET_VRING_ADDR with the log
    /// flag. `log` is borrowed.
    /// Errors: also when the backend offers no LOG_ALL or LOG_SHMFD.
    Result<void> start_logging(const DirtyLog& log);
    /// Another log from now on: so Cloud Hypervisor takes what it has, pass by pass.
    Result<void> set_log_base(const DirtyLog& log);
    Result<void> stop_logging();

    /// Any message. `reply`: exactly its bytes, or at most; empty: an acknowledgement, if one is
    /// asked for.
    enum class ReplySize { kExact, kAtMost };
    Result<void> exchange(uint32_t request, std::span<const std::byte> payload,
                          std::span<const int> fds = {}, std::span<std::byte> reply = {},
                          ReplySize size = ReplySize::kExact);

    /// For tests that misbehave: bytes as they are, and nothing is waited for.
    Channel& raw() { return channel_; }
    /// The other end of SET_BACKEND_REQ_FD. A backend may only send what the VMM understands, which
    /// is CONFIG_CHANGE_MSG, or nothing.
    Channel& backend_requests() { return backend_requests_; }

  private:
    Result<void> negotiate(bool first);
    Result<void> negotiate_protocol(bool first);
    Result<void> announce_queues();
    Result<void> start_all();
    Result<void> memory_regions(uint32_t request, std::span<const MemoryRegion> regions, int fd);
    Result<void> set_logging(bool on);
    Result<void> set_ring_size(const QueueSetup& queue);
    Result<void> set_ring_address(const QueueSetup& queue);
    Result<void> set_ring_base(const QueueSetup& queue);
    Result<void> set_ring_fd(uint32_t request, uint16_t queue, int fd);
    Result<void> set_backend_channel();
    Result<uint64_t> ring_part(BusAddress at, uint64_t bytes, const char* what) const;
    uint32_t guess_base(const QueueSetup& queue) const;
    std::optional<uint16_t> read_index(BusAddress at) const;
    bool negotiated(unsigned protocol_feature) const {
        return (protocol_features_ & bit(protocol_feature)) != 0;
    }
    bool packed() const { return RingFormat::of(acked_).packed; }
    template <class T>
    Result<void> set(uint32_t request, const T& body, std::span<const int> fds = {});
    template <class T>
    Result<T> get(uint32_t request);

    FrontendOptions options_;
    Channel channel_;
    Channel backend_requests_;
    uint64_t features_ = 0;
    uint64_t protocol_features_ = 0;
    uint64_t queue_num_ = 0;
    uint64_t acked_ = 0;  // as last sent, transport bits included
    bool need_reply_ = false;
    bool reconnected_ = false;  // and not activated since
    std::vector<MemoryRegion> regions_;  // as last sent
    int memory_fd_ = -1;
    std::vector<QueueSetup> active_;
    std::map<uint16_t, uint32_t> bases_;  // what GET_VRING_BASE said, until a reset
    std::vector<Fd> masked_calls_;
};

/// "SET_VRING_ADDR"; for messages.
const char* request_name(uint32_t request);

}  // namespace viommu::guest
