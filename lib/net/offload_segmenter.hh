// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>

#include "offload.hh"
#include "offload_packet.hh"
#include "viommu_base.hh"

namespace viommu::net::offload {

/// Cuts a packet, for which fit() has said kSegment, into packets that its receiver can take, one
/// at a time: a packet of 64 KiB needs no more mbufs at once than its receiver takes at once.
///
/// Each is a copy. (librte_gso, whose segments refer to the packet, knows neither TCP in IPv6 nor
/// UDP segmentation, and leaves checksums undone, for which the payload must be read anyway.)
/// IPv4: identification counts up. TCP: FIN and PSH in the last, CWR in the first.
///
/// Threads: one
class Segmenter {
  public:
    /// No guest makes an lcore cut more of one packet: 64 KiB of 64 bytes.
    static constexpr uint32_t kMaxSegments = 1024;

    Segmenter() = default;
    /// `packet` and `pool` outlive its use.
    Segmenter(rte_mbuf& packet, const Receiver& receiver, rte_mempool& pool) noexcept;

    uint32_t segments() const noexcept { return count_; }
    bool done() const noexcept { return made_ == count_; }
    /// The next, the caller's. Null: done(), or the pool is exhausted; try again or give up.
    rte_mbuf* next() noexcept;

  private:
    void patch(const Headers& headers, rte_mbuf& segment, uint32_t payload_bytes) noexcept;

    rte_mbuf* packet_ = nullptr;
    rte_mempool* pool_ = nullptr;
    const rte_mbuf* from_ = nullptr;  ///< where the next payload byte is
    uint32_t from_at_ = 0;
    uint32_t count_ = 0, made_ = 0;
    bool ip_ready_ = false;  ///< the receiver wants finished checksums
    bool l4_ready_ = false;
};

/// Makes bursts of packets fit a receiver. State: the packet that is being cut.
///
/// Threads: one; counters any
class Adapter {
  public:
    struct Moved {
        unsigned taken;  ///< of `in`; freed, or what they became is in `out`, or is pending()
        unsigned made;   ///< of `out`
    };

    /// `pool`: for pieces of packets; outlives it.
    explicit Adapter(rte_mempool& pool) : pool_(pool) {}
    ~Adapter();
    Adapter(const Adapter&) = delete;
    Adapter& operator=(const Adapter&) = delete;

    /// As many packets from the front of `in` as fit into `out`. `in` may be empty, to go on with
    /// what is pending. `out` may be `in`'s own memory only when nothing is_large() is in it.
    Moved run(std::span<rte_mbuf* const> in, std::span<rte_mbuf*> out,
              const Receiver& receiver) noexcept;
    /// There are more pieces of a packet that has been taken.
    bool pending() const noexcept { return packet_ != nullptr; }
    /// Drop these, counted once: the receiver has gone.
    void drop_pending() noexcept;

    Counter segmented;      ///< packets cut
    Counter drop_offload;   ///< packets that fit() finds impossible, or that need too many pieces
    Counter drop_no_mbuf;   ///< packets of which pieces are missing: the pool was exhausted
    Counter drop_rest;      ///< packets of which the rest was dropped with drop_pending()

  private:
    void finish() noexcept;

    rte_mempool& pool_;
    rte_mbuf* packet_ = nullptr;
    Segmenter segmenter_;
};

}  // namespace viommu::net::offload
