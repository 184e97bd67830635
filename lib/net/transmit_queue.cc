// SPDX-License-Identifier: BSD-3-Clause
#include "transmit_queue.hh"

#include <rte_mbuf.h>

#include <algorithm>

namespace viommu::net {

namespace {
constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);
constexpr uint32_t kMinFrame = 14;  // an Ethernet header

/// As many empty packets as the pool can give, at most out.size().
unsigned allocate(rte_mempool& pool, std::span<rte_mbuf*> out) noexcept {
    if (rte_pktmbuf_alloc_bulk(&pool, out.data(), unsigned(out.size())) == 0)
        return unsigned(out.size());
    unsigned got = 0;
    while (got < out.size() && (out[got] = rte_pktmbuf_alloc(&pool)) != nullptr) ++got;
    return got;
}

}  // namespace

unsigned TransmitQueue::receive(std::span<rte_mbuf*> out) noexcept {
    const Burst burst(*this);
    if (!burst) return 0;
    const unsigned waiting = ring_.available(unsigned(std::min<size_t>(out.size(), kBurst)));
    if (waiting == 0) {
        count_broken();
        return 0;
    }
    // Without a place to put them the packets stay in the guest's ring: it slows down, loses none.
    std::array<rte_mbuf*, kBurst> fresh;
    const unsigned room = allocate(pool_, std::span(fresh).first(waiting));
    if (room < waiting) counters_.no_mbuf.add();

    unsigned got = 0;
    uint64_t bytes = 0;
    for (unsigned taken = 0; taken < room; ++taken) {
        const virtq::Pop pop = take_chain();
        if (pop == virtq::Pop::kEmpty || pop == virtq::Pop::kBroken) break;
        if (pop == virtq::Pop::kFault) {
            counters_.drop_fault.add();
        } else if (pop == virtq::Pop::kMalformed ||
                   chain_.readable_bytes() < kHeaderBytes + kMinFrame) {
            counters_.drop_malformed.add();
        } else if (chain_.readable_bytes() - kHeaderBytes > max_frame_) {
            counters_.drop_too_big.add();
        } else if (read_frame(fresh[got])) {
            bytes += fresh[got]->pkt_len;
            out[got] = fresh[got];
            ++got;
        }
        ring_.push(chain_.taken(), 0);
    }
    count_broken();
    if (got < room) rte_pktmbuf_free_bulk(fresh.data() + got, room - got);
    counters_.packets.add(got);
    counters_.bytes.add(bytes);
    return got;
}

/// Copy chain_ behind its header into `packet`, and more segments when it does not fit. On false
/// the drop has been counted, and `packet` can be used for the next.
bool TransmitQueue::read_frame(rte_mbuf* packet) noexcept {
    virtq::Cursor<IovaSpace, Access::kRead> cursor(space_, chain_.readable(),
                                                   chain_.readable_bytes());
    // No offload is offered, so nothing in the header means anything.
    uint32_t left = uint32_t(chain_.readable_bytes()) - kHeaderBytes;
    bool ok = cursor.skip(kHeaderBytes) == kHeaderBytes;
    rte_mbuf* last = packet;
    while (ok && left > 0) {
        if (rte_pktmbuf_tailroom(last) == 0) {
            rte_mbuf* next = rte_pktmbuf_alloc(&pool_);
            if (next == nullptr) {
                counters_.drop_no_mbuf.add();
                break;
            }
            last->next = next;
            packet->nb_segs++;
            last = next;
        }
        const uint32_t want = std::min<uint32_t>(left, rte_pktmbuf_tailroom(last));
        auto* to = rte_pktmbuf_mtod_offset(last, std::byte*, last->data_len);
        ok = cursor.read({to, want}) == want;
        last->data_len = uint16_t(last->data_len + want);
        packet->pkt_len += want;
        left -= want;
    }
    if (ok && left == 0) return true;
    if (!ok) counters_.drop_fault.add();
    rte_pktmbuf_free(packet->next);
    rte_pktmbuf_reset(packet);
    return false;
}

}  // namespace viommu::net
