// SPDX-License-Identifier: BSD-3-Clause
#include "transmit_queue.hh"

#include <rte_mbuf.h>

#include <algorithm>

#include "copy.hh"
#include "fresh_mbufs.hh"
#include "offload.hh"

namespace viommu::net {

namespace {

constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);
constexpr uint32_t kMinFrame = 14;  // an Ethernet header

/// A frame that needs more mbufs goes the way that can handle any.
constexpr unsigned kMaxSegments = 64;
/// Of one burst.
constexpr unsigned kMaxMbufs = 256;
static_assert(NetQueue::kBurst <= kMaxMbufs && kMaxSegments <= kMaxMbufs);

}  // namespace

TransmitQueue::TransmitQueue(xlate::Reader reader, rte_mempool& pool, uint32_t max_frame)
    : NetQueue(std::move(reader)),
      pool_(pool),
      max_frame_(max_frame),
      room_(room_of_mbufs(pool)),
      max_plain_(kHeaderBytes +
                 uint32_t(std::min<uint64_t>(max_frame_, uint64_t{room_} * kMaxSegments))) {}

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
    std::array<const std::byte*, kBurst> at;
    std::array<rte_mbuf*, kMaxMbufs> fresh;

    const virtq::PlainLimits limits{
        .writable = false, .min_bytes = kHeaderBytes + kMinFrame, .max_bytes = max_plain_};
    const unsigned popped = pop_plain(queue, std::span(plain).first(most), limits);
    if (popped == 0) return 0;
    // The first lines of all buffers are on their way before the first is copied.
    IovaSpace::Finder finder(space_);
    uint32_t longest = 0;
    for (unsigned i = 0; i < popped; ++i) {
        longest = std::max(longest, plain[i].len);
        at[i] = finder.find(plain[i].addr, plain[i].len, Access::kRead);
        __builtin_prefetch(at[i]);
    }
    const auto [n, mbufs] =
        get_mbufs(fresh.data(), std::span(plain).first(popped), longest, no_mbuf);
    queue.unpop_plain(popped - n);
    unsigned used = 0;  // of `fresh`
    const bool offloads = this->offloads();
    bool dropped = false;
    for (unsigned i = 0; i < n; ++i) {
        rte_mbuf* packet = fresh[used];
        if (at[i] == nullptr) [[unlikely]] {  // in several pieces, or not there
            chain_.begin(plain[i].taken());
            chain_.append(plain[i].addr, plain[i].len, false);
            rte_pktmbuf_reset(packet);
            used += take_from_chain(taken, packet, std::span(fresh).first(mbufs).subspan(used + 1));
            if (packet == nullptr)
                ++used;
            else
                fresh[used] = packet;
            continue;
        }
        const uint32_t bytes = plain[i].len - kHeaderBytes;
        begin(packet, bytes);
        wire::virtio_net_hdr header;
        if (offloads) virtq::copy_once(&header, at[i], sizeof header);
        ++used;
        if (bytes <= room_) [[likely]]
            copy_frame(rte_pktmbuf_mtod(packet, std::byte*), at[i] + kHeaderBytes, bytes);
        else
            used += copy_segments(packet, &fresh[used], room_, at[i] + kHeaderBytes, bytes);
        if (offloads && !offload::is_plain(header) && !leave_undone(header, *packet)) {
            rte_pktmbuf_free(packet);
            dropped = true;
            continue;
        }
        taken.add(packet);
    }
    copied();
    queue.push_plain(std::span(plain).first(n));
    put_fresh(pool_, std::span(fresh).first(mbufs).subspan(used));
    if (no_mbuf && (dropped || used < mbufs))
        no_mbuf = false;  // a packet was dropped, so there is an mbuf again
    else if (no_mbuf)
        counters_.no_mbuf.add();
    return n;
}

/// Get mbufs for the frames of `plain`, or for as many as there are mbufs for. Without a place to
/// put them the others stay in the guest's ring: it slows down, loses none. A frame for which there
/// are some mbufs, and not all, is for the other way.
TransmitQueue::Mbufs TransmitQueue::get_mbufs(rte_mbuf** fresh,
                                              std::span<const virtq::Plain> plain,
                                              uint32_t longest, bool& no_mbuf) noexcept {
    const auto n = unsigned(plain.size());
    Mbufs all{n, n};
    unsigned single = n;  // as many that come first need one mbuf each
    if (longest > kHeaderBytes + room_) {
        all = {0, 0};
        for (const virtq::Plain& chain : plain) {
            const unsigned mbufs = mbufs_for(chain.len - kHeaderBytes);
            if (mbufs > 1) single = std::min(single, all.frames);
            if (all.mbufs + mbufs > kMaxMbufs) break;
            all.mbufs += mbufs;
            ++all.frames;
        }
    }
    if (get_fresh(pool_, fresh, all.mbufs)) [[likely]]
        return all;
    const unsigned got = get_some_fresh(pool_, fresh, single);
    no_mbuf = got < single;
    return {got, got};
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
    if (pop == virtq::Pop::kFault) {
        counters_.drop_fault.add();
    } else if (pop == virtq::Pop::kMalformed) {
        counters_.drop_malformed.add();
    } else if (popped) {
        std::array<rte_mbuf*, kMaxSegments> more;
        unsigned n = 0;
        const uint64_t bytes = chain_.readable_bytes();
        if (bytes > kHeaderBytes + room_ && bytes <= max_plain_)
            n = mbufs_for(uint32_t(bytes) - kHeaderBytes) - 1;
        if (n != 0 && !get_fresh(pool_, more.data(), n)) n = 0;
        const unsigned used = take_from_chain(taken, fresh, std::span(more).first(n));
        put_fresh(pool_, std::span(more).first(n).subspan(used));
    }
    if (popped) ring_.push(chain_.taken(), 0);
    if (fresh != nullptr) rte_pktmbuf_free(fresh);
    return popped;
}

/// Make a packet of chain_ and `fresh`, which is null then; or drop and count it. More mbufs are
/// those of `more`, of which it returns how many it took, and then the pool's.
unsigned TransmitQueue::take_from_chain(Taken& taken, rte_mbuf*& fresh,
                                        std::span<rte_mbuf*> more) noexcept {
    unsigned used = 0;
    if (chain_.readable_bytes() < kHeaderBytes + kMinFrame) {
        counters_.drop_malformed.add();
    } else if (chain_.readable_bytes() - kHeaderBytes >
               (offloads() ? offload::kMaxBytes : max_frame_)) {
        counters_.drop_too_big.add();
    } else if (read_frame(fresh, more, used)) {
        taken.add(std::exchange(fresh, nullptr));
    }
    return used;
}

/// Copy chain_ behind its header into `packet`, and more segments when it does not fit. On false
/// the drop has been counted, and `packet` can be used for the next.
bool TransmitQueue::read_frame(rte_mbuf* packet, std::span<rte_mbuf*> more,
                               unsigned& used) noexcept {
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
            rte_mbuf* next = used < more.size() ? more[used++] : rte_pktmbuf_alloc(&pool_);
            if (next == nullptr) {
                counters_.drop_no_mbuf.add();
                break;
            }
            begin_segment(next, 0);
            packet->nb_segs++;
            last = last->next = next;
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
