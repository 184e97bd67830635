// SPDX-License-Identifier: BSD-3-Clause
#include "transmit_queue.hh"

#include <rte_mbuf.h>

#include <algorithm>

#include "copy.hh"
#include "offload.hh"

namespace viommu::net {

namespace {

constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);
constexpr uint32_t kMinFrame = 14;  // an Ethernet header

/// Makes a packet of an mbuf that came from the pool as it is: there it has no next, one segment
/// and one reference. The fields that a flag would have to announce are left alone.
[[gnu::always_inline]] inline void begin(rte_mbuf* m, uint32_t bytes) noexcept {
    m->data_off = std::min<uint16_t>(RTE_PKTMBUF_HEADROOM, m->buf_len);
    m->port = RTE_MBUF_PORT_INVALID;
    m->ol_flags = 0;
    m->packet_type = 0;
    m->pkt_len = bytes;
    m->data_len = uint16_t(bytes);
    m->vlan_tci = 0;
}

/// Give mbufs back that nothing was done with.
void put_back(rte_mempool& pool, std::span<rte_mbuf*> fresh) noexcept {
    if (fresh.empty()) return;
    rte_mempool_put_bulk(&pool, reinterpret_cast<void**>(fresh.data()), unsigned(fresh.size()));
}

}  // namespace

TransmitQueue::TransmitQueue(xlate::Reader reader, rte_mempool& pool, uint32_t max_frame)
    : NetQueue(std::move(reader)),
      pool_(pool),
      max_frame_(max_frame),
      room_(rte_pktmbuf_data_room_size(&pool) -
            std::min<uint32_t>(RTE_PKTMBUF_HEADROOM, rte_pktmbuf_data_room_size(&pool))) {}

void TransmitQueue::Taken::add(rte_mbuf* packet) noexcept {
    out[packets++] = packet;
    bytes += packet->pkt_len;
}

unsigned TransmitQueue::receive(std::span<rte_mbuf*> out) noexcept {
    const Burst burst(*this);
    if (!burst) return 0;
    Taken taken{out};
    const auto most = unsigned(std::min<size_t>(out.size(), kBurst));
    ring_.visit([&](auto& queue) { take_all(queue, taken, most); });
    count_broken();
    if (taken.packets != 0) {
        counters_.packets.add(taken.packets);
        counters_.bytes.add(taken.bytes);
    }
    return taken.packets;
}

/// At most `most` chains.
template <class Q>
void TransmitQueue::take_all(Q& queue, Taken& taken, unsigned most) noexcept {
    for (unsigned chains = 0; chains < most;) {
        bool no_mbuf = false;
        const unsigned plain =
            plain_way_ ? take_plain(queue, taken, most - chains, no_mbuf) : 0;
        chains += plain;
        // What comes next is of another kind, or there is nothing. (Asked for all that may come, as
        // the plain way does: so both look at the index at the same times.)
        if (chains == most || no_mbuf || queue.available(most - chains) == 0 || !take_any(taken))
            return;
        ++chains;
    }
}

/// Plain chains that come next. Returns how many.
template <class Q>
unsigned TransmitQueue::take_plain(Q& queue, Taken& taken, unsigned most, bool& no_mbuf) noexcept {
    std::array<virtq::Plain, kBurst> plain;
    std::array<rte_mbuf*, kBurst> fresh;
    std::array<const std::byte*, kBurst> at;

    const virtq::PlainLimits limits{.writable = false,
                                    .min_bytes = kHeaderBytes + kMinFrame,
                                    .max_bytes = kHeaderBytes + std::min(max_frame_, room_)};
    unsigned n = pop_plain(queue, std::span(plain).first(most), limits);
    if (n == 0) return 0;
    if (rte_mempool_get_bulk(&pool_, reinterpret_cast<void**>(fresh.data()), n) != 0) {
        // As many as there are. Without a place to put them the packets stay in the guest's ring:
        // it slows down, loses none.
        unsigned got = 0;
        while (got < n &&
               rte_mempool_get(&pool_, reinterpret_cast<void**>(fresh.data() + got)) == 0)
            ++got;
        queue.unpop_plain(n - got);
        n = got;
        no_mbuf = true;
    }
    // The first lines of all buffers are on their way before the first is copied.
    IovaSpace::Finder finder(space_);
    for (unsigned i = 0; i < n; ++i) {
        at[i] = finder.find(plain[i].addr, plain[i].len, Access::kRead);
        __builtin_prefetch(at[i]);
    }
    unsigned used = 0;  // of `fresh`
    const bool offloads = this->offloads();
    for (unsigned i = 0; i < n; ++i) {
        rte_mbuf*& packet = fresh[used];
        if (at[i] == nullptr) [[unlikely]] {  // in several pieces, or not there
            chain_.begin(plain[i].taken());
            chain_.append(plain[i].addr, plain[i].len, false);
            rte_pktmbuf_reset(packet);
            take_from_chain(taken, packet);
            used += packet == nullptr;
            continue;
        }
        const uint32_t bytes = plain[i].len - kHeaderBytes;
        begin(packet, bytes);
        wire::virtio_net_hdr header;
        if (offloads) virtq::copy_once(&header, at[i], sizeof header);
        copy_frame(rte_pktmbuf_mtod(packet, std::byte*), at[i] + kHeaderBytes, bytes);
        if (offloads && !offload::is_plain(header) && !leave_undone(header, *packet)) continue;
        taken.add(packet);
        ++used;
    }
    copied();
    queue.push_plain(std::span(plain).first(n));
    put_back(pool_, std::span(fresh).subspan(used, n - used));
    if (no_mbuf && used < n)
        no_mbuf = false;  // a packet was dropped, so there is an mbuf again
    else if (no_mbuf)
        counters_.no_mbuf.add();
    return n;
}

/// The next chain, of any kind. False: there is none, or no mbuf for it.
bool TransmitQueue::take_any(Taken& taken) noexcept {
    rte_mbuf* fresh = rte_pktmbuf_alloc(&pool_);
    if (fresh == nullptr) {
        counters_.no_mbuf.add();
        return false;
    }
    const virtq::Pop pop = take_chain();
    const bool popped = pop != virtq::Pop::kEmpty && pop != virtq::Pop::kBroken;
    if (pop == virtq::Pop::kFault)
        counters_.drop_fault.add();
    else if (pop == virtq::Pop::kMalformed)
        counters_.drop_malformed.add();
    else if (popped)
        take_from_chain(taken, fresh);
    if (popped) ring_.push(chain_.taken(), 0);
    if (fresh != nullptr) rte_pktmbuf_free(fresh);
    return popped;
}

/// Make a packet of chain_ and `fresh`, which is null then; or drop and count it.
void TransmitQueue::take_from_chain(Taken& taken, rte_mbuf*& fresh) noexcept {
    if (chain_.readable_bytes() < kHeaderBytes + kMinFrame) {
        counters_.drop_malformed.add();
    } else if (chain_.readable_bytes() - kHeaderBytes >
               (offloads() ? offload::kMaxBytes : max_frame_)) {
        counters_.drop_too_big.add();
    } else if (read_frame(fresh)) {
        taken.add(std::exchange(fresh, nullptr));
    }
}

/// Copy chain_ behind its header into `packet`, and more segments when it does not fit. On false
/// the drop has been counted, and `packet` can be used for the next.
bool TransmitQueue::read_frame(rte_mbuf* packet) noexcept {
    virtq::Cursor<IovaSpace, Access::kRead> cursor(space_, chain_.readable(),
                                                   chain_.readable_bytes());
    wire::virtio_net_hdr header;
    const auto raw = std::as_writable_bytes(std::span(&header, 1));
    bool ok = cursor.read(raw) == raw.size();
    // Without offloads nothing in it means anything.
    const bool undone = ok && offloads() && !offload::is_plain(header);
    uint32_t left = uint32_t(chain_.readable_bytes()) - kHeaderBytes;
    if (ok && !undone && left > max_frame_) {
        counters_.drop_too_big.add();
        return false;
    }
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
    if (ok && left == 0 && (!undone || leave_undone(header, *packet))) return true;
    if (!ok) counters_.drop_fault.add();
    rte_pktmbuf_free(packet->next);
    rte_pktmbuf_reset(packet);
    return false;
}

/// Give `packet` the flags that its header asks for. On false the drop has been counted.
bool TransmitQueue::leave_undone(const wire::virtio_net_hdr& header, rte_mbuf& packet) noexcept {
    if (!offload::to_mbuf(header, acked_, packet)) {
        counters_.drop_malformed.add();
        return false;
    }
    if (packet.pkt_len <= max_frame_ || offload::is_large(packet)) return true;
    counters_.drop_too_big.add();
    return false;
}

}  // namespace viommu::net
