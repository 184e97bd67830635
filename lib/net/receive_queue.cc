// SPDX-License-Identifier: BSD-3-Clause
#include "receive_queue.hh"

#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include <algorithm>

#include "copy.hh"

namespace viommu::net {

namespace {

constexpr uint32_t kHeaderBytes = sizeof(wire::virtio_net_hdr);
/// A packet may be spread over this many buffers; more (buffers of under 300 bytes for 64 KiB)
/// is too big for what the guest provides.
constexpr unsigned kMaxBuffers = 256;
/// A guest that adds useless buffers as fast as they are returned gets this many looks.
constexpr unsigned kMaxTries = 2 * kMaxBuffers;

/// Where a frame's bytes come from: the header, then the segments of an mbuf.
class Source {
  public:
    Source(const std::byte* header, uint32_t header_bytes, const rte_mbuf* packet)
        : at_(header), left_(header_bytes), next_(packet) {}

    /// Copy as much as `to` holds, or is left.
    void copy(std::span<std::byte> to) noexcept {
        while (!to.empty()) {
            if (left_ == 0 && !advance()) return;
            const auto n = std::min<size_t>(to.size(), left_);
            copy_frame(to.data(), at_, n);
            to = to.subspan(n);
            at_ += n;
            left_ -= uint32_t(n);
        }
    }

  private:
    bool advance() noexcept {
        while (left_ == 0 && next_ != nullptr) {
            at_ = rte_pktmbuf_mtod(next_, const std::byte*);
            left_ = next_->data_len;
            next_ = next_->next;
        }
        return left_ != 0;
    }

    const std::byte* at_;
    uint32_t left_;
    const rte_mbuf* next_;
};

/// num_buffers of a header in guest memory, whose two bytes may lie in two pieces.
class NumBuffers {
  public:
    /// `piece` holds the buffer's bytes from `offset` on.
    void find(std::span<std::byte> piece, uint32_t offset) noexcept {
        for (uint32_t i = 0; i < 2; ++i)
            if (kAt + i >= offset && kAt + i - offset < piece.size())
                bytes_[i] = piece.data() + (kAt + i - offset);
    }
    /// All pieces of the header have been seen.
    void set(unsigned n, const IovaSpace& space) noexcept {
        *bytes_[0] = std::byte(n);
        *bytes_[1] = std::byte(n >> 8);
        for (const std::byte* byte : bytes_) virtq::wrote(space, {byte, 1});
    }

  private:
    static constexpr uint32_t kAt = offsetof(wire::virtio_net_hdr, num_buffers);
    std::byte* bytes_[2] = {};
};

/// The words of a virtio-net header, to be stored as two registers: built in memory, its load would
/// wait for the stores.
struct HeaderWords {
    uint64_t low;
    uint32_t high;

    explicit HeaderWords(wire::virtio_net_hdr header) noexcept {
        header.num_buffers = 1;
        std::memcpy(&low, &header, sizeof low);
        std::memcpy(&high, reinterpret_cast<const std::byte*>(&header) + sizeof low, sizeof high);
        static_assert(sizeof low + sizeof high == kHeaderBytes);
        asm("" : "+r"(low), "+r"(high));
    }
    void store(std::byte* to) const noexcept {
        std::memcpy(to, &low, sizeof low);
        std::memcpy(to + sizeof low, &high, sizeof high);
    }
};

/// Counts a burst.
class Counted {
  public:
    explicit Counted(BurstCount& bursts) : bursts_(bursts) { bursts_.begin(); }
    ~Counted() { bursts_.end(); }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

  private:
    BurstCount& bursts_;
};

/// rte_pktmbuf_free_bulk(), which looks at each segment of each packet, for what nearly all packets
/// are: one segment of the same pool, nobody else's.
void free_all(std::span<rte_mbuf*> packets) noexcept {
    if (packets.empty()) return;
    rte_mempool* const pool = packets[0]->pool;
    bool plain = true;
    for (const rte_mbuf* m : packets) {
        const bool alone = m->nb_segs == 1, ours = rte_mbuf_refcnt_read(m) == 1;
        const bool direct = RTE_MBUF_DIRECT(m), same = m->pool == pool;
        plain &= alone & ours & direct & same;
    }
    if (plain) [[likely]]
        rte_mempool_put_bulk(pool, reinterpret_cast<void**>(packets.data()),
                             unsigned(packets.size()));
    else
        rte_pktmbuf_free_bulk(packets.data(), unsigned(packets.size()));
}

}  // namespace

unsigned ReceiveQueue::send(std::span<rte_mbuf*> in) noexcept {
    in = in.first(std::min<size_t>(in.size(), kBurst));
    const Counted counted(bursts_);
    const Burst burst(*this);  // has the full fence between N3 and what control_ says
    if (!burst || !control_.in_use(pair_)) {
        counters_.not_running.add(in.size());
        return 0;
    }
    packets_ = bytes_ = pieces_ = 0;
    features_ = control_.features();
    receiver_ = offload::Receiver::guest(features_);
    unsigned taken = 0;
    for (auto delivery = Delivery::kDone; taken < in.size() && delivery == Delivery::kDone;) {
        const auto rest = in.subspan(taken);
        if (const unsigned n = ready(rest); n != 0) {
            const unsigned delivered = deliver(rest.first(n));
            taken += delivered;
            if (delivered != n) delivery = Delivery::kNoBuffer;
        } else if (delivery = deliver_other(*rest[0]); delivery == Delivery::kDone) {
            ++taken;
        }
        if (delivery == Delivery::kNoBuffer) counters_.no_buffer.add(in.size() - taken);
    }
    count_broken();
    if (packets_ != 0) {
        counters_.packets.add(packets_);
        counters_.bytes.add(bytes_);
    }
    free_all(in.first(taken));
    return taken;
}

/// How many packets from the front on can be delivered as they are, or are now.
unsigned ReceiveQueue::ready(std::span<rte_mbuf*> in) noexcept {
    const Filter& filter = control_.filter();
    const auto is_ready = [&](rte_mbuf* packet) {
        return filter.accepts(*packet) &&
               (offload::is_plain(*packet) ||
                offload::fit(*packet, receiver_) == offload::Fit::kReady);
    };
    return unsigned(std::ranges::find_if_not(in, is_ready) - in.begin());
}

/// Packets that are ready. Returns how many were delivered or dropped: all, unless buffers ran out.
unsigned ReceiveQueue::deliver(std::span<rte_mbuf*> in) noexcept {
    unsigned taken = 0;
    while (taken < in.size()) {
        const auto rest = in.subspan(taken);
        if (plain_way_ && uint64_t{rest[0]->pkt_len} + kHeaderBytes <= buffer_bytes_) {
            taken += ring_.visit([&](auto& queue) { return give_plain(queue, rest); });
            if (taken == in.size()) break;
        }
        if (too_big(*in[taken]))
            counters_.drop_too_big.add();
        else if (write_frame(in[taken]) == Delivery::kNoBuffer)
            break;
        ++taken;
    }
    return taken;
}

/// A packet that is not ready: drop it, or cut it.
ReceiveQueue::Delivery ReceiveQueue::deliver_other(rte_mbuf& packet) noexcept {
    if (!control_.filter().accepts(packet)) {
        counters_.drop_filtered.add();
        return Delivery::kDone;
    }
    switch (offload::fit(packet, receiver_)) {
        case offload::Fit::kSegment: return cut(packet);
        case offload::Fit::kImpossible:
            counters_.drop_offload.add();
            return Delivery::kDone;
        case offload::Fit::kReady: break;  // the filter has been changed since it was asked
    }
    rte_mbuf* one = &packet;
    return deliver({&one, 1}) == 1 ? Delivery::kDone : Delivery::kNoBuffer;
}

/// One piece exists at a time. When buffers run out after the first, the rest is lost, as on a wire.
ReceiveQueue::Delivery ReceiveQueue::cut(rte_mbuf& packet) noexcept {
    offload::Segmenter segmenter(packet, receiver_, pool_);
    const uint32_t all = segmenter.segments();
    if (all > offload::Segmenter::kMaxSegments) {
        counters_.drop_offload.add();
        return Delivery::kDone;
    }
    if (pieces_ + all > kMaxPieces) return Delivery::kEnough;
    for (uint32_t made = 0; made < all; ++made) {
        rte_mbuf* piece = segmenter.next();
        if (piece == nullptr) {
            counters_.drop_no_mbuf.add();
            break;
        }
        const bool delivered = deliver({&piece, 1}) == 1;
        rte_pktmbuf_free(piece);
        if (!delivered && made == 0) return Delivery::kNoBuffer;
        if (!delivered) {
            counters_.drop_rest.add();
            break;
        }
        ++pieces_;
    }
    counters_.segmented.add();
    return Delivery::kDone;
}

/// Deliver the packets that come first, as long as each fits into the next buffer and that is
/// plain and in one piece. Returns how many.
template <class Q>
unsigned ReceiveQueue::give_plain(Q& queue, std::span<rte_mbuf*> in) noexcept {
    std::array<virtq::Plain, kBurst> plain;
    std::array<std::byte*, kBurst> at;
    const virtq::PlainLimits limits{
        .writable = true, .min_bytes = kHeaderBytes, .max_bytes = ~uint32_t{0}};
    const unsigned n = pop_plain(queue, std::span(plain).first(in.size()), limits);
    if (n == 0) return 0;
    buffer_bytes_ = plain[n - 1].len;
    IovaSpace::Finder finder(space_);
    unsigned fit = 0;
    for (; fit < n; ++fit) {
        const uint32_t bytes = in[fit]->pkt_len;
        if (too_big(*in[fit]) || plain[fit].len < kHeaderBytes + bytes) break;
        at[fit] = finder.find(plain[fit].addr, kHeaderBytes + bytes, Access::kWrite);
        if (at[fit] == nullptr) [[unlikely]]
            break;
        rte_prefetch0_write(at[fit]);
        rte_prefetch0(rte_pktmbuf_mtod(in[fit], const void*));
    }
    const HeaderWords finished{wire::virtio_net_hdr{}};
    uint64_t sum = 0;
    for (unsigned i = 0; i < fit; ++i) {
        const rte_mbuf* packet = in[i];
        const uint32_t bytes = packet->pkt_len;
        if (offload::is_plain(*packet)) [[likely]]
            finished.store(at[i]);
        else
            HeaderWords(offload::from_mbuf(*packet, features_)).store(at[i]);
        if (packet->nb_segs == 1) [[likely]] {
            copy_frame(at[i] + kHeaderBytes, rte_pktmbuf_mtod(packet, const std::byte*), bytes);
        } else {
            Source source(nullptr, 0, packet);
            source.copy({at[i] + kHeaderBytes, bytes});
        }
        virtq::wrote(space_, {at[i], kHeaderBytes + bytes});
        plain[i].written = kHeaderBytes + bytes;
        sum += bytes;
    }
    packets_ += fit;
    bytes_ += sum;
    queue.push_plain(std::span(plain).first(fit));
    queue.unpop_plain(n - fit);
    return fit;
}

/// Deliver one packet, or drop and count it. kNoBuffer: the packet has not been touched.
///
/// Buffers are taken until the packet fits, and returned only then: a packet never comes in part.
/// A buffer that cannot begin a packet goes back with used length 0, which a driver treats as a
/// packet too short, and the packet tries the next one; at a fault so do all that were taken, and
/// the packet is dropped.
ReceiveQueue::Delivery ReceiveQueue::write_frame(const rte_mbuf* packet) noexcept {
    const bool mergeable = acked(wire::VIRTIO_NET_F_MRG_RXBUF);
    struct Used {  // without initialisers: nobody wants 256 of them cleared for each packet
        uint16_t id, slots;
        uint32_t bytes;
        virtq::Taken chain() const { return {.id = id, .slots = slots}; }
    };
    std::array<Used, kMaxBuffers> used;
    unsigned filled = 0;     // buffers in `used`
    const auto put_back = [&] {
        for (unsigned i = filled; i-- > 0;) ring_.unpop(used[i].chain());
    };
    NumBuffers num_buffers;  // where the first buffer has that field
    const auto header = offload::is_plain(*packet) ? wire::virtio_net_hdr{}
                                                   : offload::from_mbuf(*packet, features_);
    Source source(reinterpret_cast<const std::byte*>(&header), kHeaderBytes, packet);
    uint32_t left = kHeaderBytes + packet->pkt_len;
    Counter* drop = nullptr;
    for (unsigned tries = 0; left > 0 && drop == nullptr; ++tries) {
        const unsigned most = mergeable ? std::min(kMaxBuffers, ring_.size()) : 1;
        if (filled == most) {
            // Nothing that the guest can provide would hold it. It keeps its buffers.
            put_back();
            counters_.drop_too_big.add();
            return Delivery::kDone;
        }
        const virtq::Pop pop = tries < kMaxTries ? take_chain() : virtq::Pop::kEmpty;
        if (pop == virtq::Pop::kEmpty || pop == virtq::Pop::kBroken) {
            put_back();
            return Delivery::kNoBuffer;
        }
        if (pop != virtq::Pop::kChain || chain_.writable_bytes() < kHeaderBytes) {
            counters_.bad_buffer.add();
            if (filled == 0) {
                ring_.push(chain_.taken(), 0);
                continue;
            }
            drop = pop == virtq::Pop::kFault ? &counters_.drop_fault : &counters_.drop_malformed;
        }
        const auto room = uint32_t(std::min<uint64_t>(chain_.writable_bytes(), left));
        buffer_bytes_ = uint32_t(std::min<uint64_t>(chain_.writable_bytes(), ~uint32_t{0}));
        used[filled++] = {chain_.taken().id, chain_.taken().slots, room};
        if (drop != nullptr) break;
        virtq::Cursor<IovaSpace, Access::kWrite> cursor(space_, chain_.writable(), room);
        for (uint32_t done = 0; done < room;) {
            const auto piece = cursor.take(room - done);
            if (piece.empty()) {
                drop = &counters_.drop_fault;
                break;
            }
            if (filled == 1) num_buffers.find(piece, done);
            source.copy(piece);
            virtq::wrote(space_, piece);
            done += uint32_t(piece.size());
        }
        left -= room;
    }
    if (drop == nullptr) {
        num_buffers.set(filled, space_);
        ++packets_;
        bytes_ += packet->pkt_len;
    } else {
        drop->add();
    }
    for (unsigned i = 0; i < filled; ++i)
        ring_.push(used[i].chain(), drop == nullptr ? used[i].bytes : 0);
    return Delivery::kDone;
}

}  // namespace viommu::net
