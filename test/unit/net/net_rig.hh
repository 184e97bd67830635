// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>
#include <rte_mbuf.h>
#include <sys/eventfd.h>

#include <cstdlib>
#include <numeric>
#include <random>

#include "any_rig.hh"
#include "viommu_net.hh"

namespace viommu::net::test {

using virtq::test::Desc;
using virtq::test::Driver;
using virtq::test::kIndirect;
using virtq::test::kEvents;
using virtq::test::kInOrder;
using virtq::test::kNext;
using virtq::test::kPacked;
using virtq::test::kPage;
using virtq::test::PageSpace;
using virtq::test::ReferenceDriver;

using Bytes = std::vector<std::byte>;

constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

inline constexpr uint32_t kHeader = sizeof(wire::virtio_net_hdr);
inline constexpr uint64_t kAcked = bit(wire::VIRTIO_F_VERSION_1) |
                                   bit(wire::VIRTIO_F_ACCESS_PLATFORM) |
                                   bit(wire::VIRTIO_F_INDIRECT_DESC);
inline constexpr uint64_t kMergeable = bit(wire::VIRTIO_NET_F_MRG_RXBUF);

/// VIOMMU_SEED repeats a run.
inline unsigned choose_seed() {
    const char* given = std::getenv("VIOMMU_SEED");
    return given != nullptr ? unsigned(std::strtoul(given, nullptr, 0)) : std::random_device{}();
}

inline Bytes frame(size_t bytes, unsigned salt = 0) {
    Bytes f(bytes);
    for (size_t i = 0; i < bytes; ++i)
        f[i] = std::byte((i * 131 + (i >> 8) * 7 + salt * 29) & 0xff);
    return f;
}

struct EventFd {
    EventFd() : fd(eventfd(0, EFD_NONBLOCK)) {}
    ~EventFd() { close(fd); }
    EventFd(const EventFd&) = delete;
    uint64_t drain() const {
        uint64_t n = 0;
        return read(fd, &n, sizeof n) == sizeof n ? n : 0;
    }
    int fd;
};

/// A packet pool, and packets made of its mbufs. Every mbuf must come back.
class Pool {
  public:
    explicit Pool(unsigned count = 2047, uint16_t room = 2048)
        : count_(count),
          pool_(rte_pktmbuf_pool_create(fmt::format("p{}", next_++).c_str(), count, 0, 0,
                                        uint16_t(RTE_PKTMBUF_HEADROOM + room), -1)) {
        EXPECT_NE(pool_, nullptr);
    }
    ~Pool() {
        EXPECT_EQ(available(), count_) << "mbufs were lost";
        rte_mempool_free(pool_);
    }
    Pool(const Pool&) = delete;

    rte_mempool& get() const { return *pool_; }
    unsigned available() const { return rte_mempool_avail_count(pool_); }

    /// A packet whose segments hold at most `segment` bytes.
    rte_mbuf* packet(const Bytes& data, size_t segment = 2048) const {
        rte_mbuf* first = nullptr;
        for (size_t at = 0; at < data.size() || first == nullptr;) {
            rte_mbuf* m = rte_pktmbuf_alloc(pool_);
            const size_t n = std::min(segment, data.size() - at);
            std::memcpy(rte_pktmbuf_append(m, uint16_t(n)), data.data() + at, n);
            at += n;
            if (first == nullptr)
                first = m;
            else
                EXPECT_EQ(rte_pktmbuf_chain(first, m), 0);
        }
        return first;
    }

  private:
    static inline unsigned next_ = 0;
    unsigned count_;
    rte_mempool* pool_;
};

/// The bytes of a packet, which is freed.
inline Bytes take(rte_mbuf* packet) {
    EXPECT_NO_THROW(rte_mbuf_sanity_check(packet, 1));
    Bytes data(packet->pkt_len);
    size_t at = 0;
    for (const rte_mbuf* m = packet; m != nullptr; m = m->next) {
        if (at + m->data_len > data.size()) break;
        std::memcpy(data.data() + at, rte_pktmbuf_mtod(m, const void*), m->data_len);
        at += m->data_len;
    }
    EXPECT_EQ(at, data.size());
    rte_pktmbuf_free(packet);
    return data;
}

/// A guest with one NIC behind the IOMMU: memory whose pages are mapped at IOVAs one by one, a
/// table that says so, the port under test, and a driver for each queue.
///
/// `space` is the guest's own idea of its IOVAs; map() and unmap() keep the table to it.
class NetRig {
  public:
    static constexpr EndpointId kEndpoint = 8;
    static constexpr DomainId kDomain = 3;
    static constexpr size_t kPages = 600;
    static constexpr size_t kLowPages = 250;  ///< in the first of two regions
    static constexpr uint64_t kLowGpa = 0x100000, kHighGpa = 0x100000000;
    static constexpr uint64_t kLowUva = 0x7f0000000000, kHighUva = 0x7e0000000000;
    static constexpr uint64_t kRings = 0x10000000, kData = 0x20000000;
    static constexpr uint64_t kDataPages = 64;

    struct Options {
        uint32_t size = 64;
        uint64_t acked = kAcked | kMergeable;
        Config config{.endpoint = kEndpoint};
        uint16_t start = 0;      ///< of both queues: index; packed: place (modulo size) and wrap
        bool ring_skew = false;  ///< rings straddle pages wherever they can
        unsigned seed = 1;       ///< of where pages are
        bool run = true;         ///< start the queues
    };

    explicit NetRig(const Pool& pool) : NetRig(pool, Options{}) {}
    NetRig(const Pool& pool, const Options& o) : options(o), space(kPages), random_(o.seed) {
        free_pages_.resize(kPages);
        std::iota(free_pages_.begin(), free_pages_.end(), 0);
        std::shuffle(free_pages_.begin(), free_pages_.end(), random_);

        table = *table::Table::create({});
        EXPECT_TRUE(table->add_endpoint(kEndpoint));
        EXPECT_EQ(table->attach(kEndpoint, kDomain, false), Status::kOk);
        settle();

        const bool packed = (o.acked & kPacked) != 0;
        const uint64_t skews[2][3] = {{0, 0, 0}, {4080, packed ? 4092u : 4094u, 4092}};
        for (uint16_t q = 0; q < 2; ++q) {
            virtq::Vring& v = vrings[q];
            v.index = q;
            v.size = o.size;
            v.desc = kRings + q * 0x1000000 + skews[o.ring_skew][0];
            v.avail = v.desc / kPage * kPage + 0x400000 + skews[o.ring_skew][1];
            v.used = v.desc / kPage * kPage + 0x800000 + skews[o.ring_skew][2];
            v.kick_fd = kick[q].fd;
            v.call_fd = call[q].fd;
            map_range(v.desc, wire::desc_table_bytes(o.size));
            map_range(v.avail, wire::avail_ring_bytes(o.size, true));
            map_range(v.used, wire::used_ring_bytes(o.size, true));
            if (packed) {
                const uint32_t place = (o.start & 0x7fff) % o.size | (o.start & 0x8000);
                v.base = place | place << 16;
            }
        }
        map_range(kData, kDataPages * kPage);

        port = std::move(*NetPort::create(o.config, *table, faults, pool.get()));
        rx = make_driver(vrings[0]);
        tx = make_driver(vrings[1]);
        port->features_acked(o.acked);
        port->memory_changed(memory());
        if (o.run) start();
    }

    std::unique_ptr<Driver> make_driver(const virtq::Vring& v) {
        if ((options.acked & kPacked) != 0)
            return std::make_unique<virtq::test::PackedDriver>(space, v, options.acked);
        return std::make_unique<ReferenceDriver>(space, v, options.start, options.acked);
    }
    /// What only the driver of a split ring can do.
    static ReferenceDriver& split(const std::unique_ptr<Driver>& driver) {
        return dynamic_cast<ReferenceDriver&>(*driver);
    }
    void start() {
        for (const auto& v : vrings) port->queue_started(v);
    }
    std::shared_ptr<const virtq::MemoryMap> memory() {
        auto map = virtq::MemoryMap::create(
            {{Gpa{kLowGpa}, Uva{kLowUva}, kLowPages * kPage, space.host(0)},
             {Gpa{kHighGpa}, Uva{kHighUva}, (kPages - kLowPages) * kPage, space.host(kLowPages)}});
        return std::make_shared<const virtq::MemoryMap>(std::move(*map));
    }

    // --- mappings --------------------------------------------------------------------------------

    static Gpa gpa(size_t page) {
        return page < kLowPages ? Gpa{kLowGpa + page * kPage}
                                : Gpa{kHighGpa + (page - kLowPages) * kPage};
    }
    /// Map one IOVA page to a page of the guest's.
    void map_page(uint64_t iova, size_t page, Access rights = Access::kReadWrite) {
        space.map(iova, page, rights);
        const auto range = IovaRange::from_length(Iova{iova / kPage * kPage}, kPage);
        ASSERT_EQ(table->map(kDomain, *range, gpa(page), rights), Status::kOk);
    }
    size_t take_page() {
        const size_t page = free_pages_.back();
        free_pages_.pop_back();
        return page;
    }
    void give_page(size_t page) { free_pages_.push_back(page); }
    /// Fresh pages around [iova, iova + bytes), anywhere in the guest's memory.
    void map_range(uint64_t iova, uint64_t bytes, Access rights = Access::kReadWrite) {
        for (uint64_t p = iova / kPage; p <= (iova + bytes - 1) / kPage; ++p)
            map_page(p * kPage, take_page(), rights);
    }
    /// Take a page out of the table; the guest itself still knows it. Answered when this returns.
    void unmap_page(uint64_t iova) {
        const auto range = IovaRange::from_length(Iova{iova / kPage * kPage}, kPage);
        ASSERT_EQ(table->unmap(kDomain, *range), Status::kOk);
        settle();
    }
    /// The guest's page behind an IOVA, mapped or not.
    size_t page_of(uint64_t iova) { return size_t(space.host_at(iova) - space.host(0)) / kPage; }
    void set_rights(uint64_t iova, Access rights) {
        const size_t page = page_of(iova);
        unmap_page(iova);
        map_page(iova, page, rights);
    }
    /// Wait for readers, as the IOMMU does before it answers.
    void settle() {
        const auto token = table->start_grace();
        while (!table->grace_over(token)) {
        }
    }

    // --- packets ---------------------------------------------------------------------------------

    /// `bytes` of the static data area, in turn. Not more than the area is in flight.
    uint64_t data(uint32_t bytes) {
        if (data_at_ + bytes > kDataPages * kPage) data_at_ = 0;
        const uint64_t at = kData + data_at_;
        data_at_ += bytes;
        return at;
    }
    /// Offer one buffer chain for `header + frame` in a single piece of the data area.
    uint64_t send(const Bytes& f) {
        const uint64_t at = data(kHeader + uint32_t(f.size()));
        fill(at, f);
        tx->chain({{at, kHeader + uint32_t(f.size()), 0, 0}});
        tx->publish();
        return at;
    }
    void fill(uint64_t at, const Bytes& f) {
        const Bytes junk = frame(kHeader, 77);  // the header means nothing without offloads
        space.write(at, junk.data(), kHeader);
        space.write(at + kHeader, f.data(), f.size());
    }
    /// What the port has taken, which is freed.
    std::vector<Bytes> receive(size_t most = NetPort::kBurst) {
        std::vector<rte_mbuf*> packets(most);
        const unsigned n = port->from_guest(0, packets);
        std::vector<Bytes> frames;
        for (unsigned i = 0; i < n; ++i) frames.push_back(take(packets[i]));
        return frames;
    }
    /// Provide a receive buffer in one piece.
    uint64_t post(uint32_t bytes) {
        const uint64_t at = data(bytes);
        post_at(at, bytes);
        return at;
    }
    void post_at(uint64_t at, uint32_t bytes) {
        rx->chain({{at, bytes, virtq::test::kWrite, 0}});
        rx->publish();
    }
    /// Give the port one packet. False when it stays ours (and is freed).
    bool deliver(rte_mbuf* packet) {
        rte_mbuf* one[] = {packet};
        if (port->to_guest(0, one) == 1) return true;
        rte_pktmbuf_free(packet);
        return false;
    }
    Bytes read(uint64_t at, size_t bytes) {
        Bytes b(bytes);
        space.read(at, b.data(), bytes);
        return b;
    }

    std::vector<xlate::Fault> take_faults() {
        std::vector<xlate::Fault> all;
        xlate::Fault f;
        while (faults.pop(f)) all.push_back(f);
        return all;
    }
    const Counters& from() const { return port->from_guest_counters(0); }
    const Counters& to() const { return port->to_guest_counters(0); }

    const Options options;
    PageSpace space;
    std::unique_ptr<table::Table> table;
    xlate::FaultQueue faults;
    EventFd kick[2], call[2];
    virtq::Vring vrings[2];
    std::unique_ptr<NetPort> port;
    std::unique_ptr<Driver> rx, tx;

  private:
    std::mt19937 random_;
    std::vector<size_t> free_pages_;
    uint64_t data_at_ = 0;
};

/// The one fault there is.
inline void expect_fault(NetRig& rig, uint64_t iova, Access access,
                         xlate::FaultReason why = xlate::FaultReason::kMapping) {
    const auto all = rig.take_faults();
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].address.value, iova);
    EXPECT_EQ(all[0].endpoint, NetRig::kEndpoint);
    EXPECT_EQ(all[0].access, access);
    EXPECT_EQ(all[0].reason, why);
}

}  // namespace viommu::net::test
