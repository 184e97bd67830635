// SPDX-License-Identifier: BSD-3-Clause
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

using std::chrono::microseconds;

/// One packet each way.
void expect_working(NetRig& rig, const Pool& pool, unsigned salt = 0) {
    rig.send(frame(60, salt));
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(60, salt));
    EXPECT_TRUE(rig.tx->pop());
    const uint64_t at = rig.post(100);
    ASSERT_TRUE(rig.deliver(pool.packet(frame(61, salt))));
    EXPECT_EQ(rig.read(at + kHeader, 61), frame(61, salt));
    EXPECT_TRUE(rig.rx->pop());
}

TEST(Rings, scattered_and_straddling_pages_work_across_the_index_wrap) {
    Pool pool(255);
    NetRig rig(pool, {.size = 1024, .start = 65000, .ring_skew = true});
    for (unsigned i = 0; i < 2500; ++i) {
        expect_working(rig, pool, i);
        if (HasFatalFailure()) return;
    }
    EXPECT_EQ(rig.port->queue_stopped(0), uint16_t(65000 + 2500));
    EXPECT_EQ(rig.port->queue_stopped(1), uint16_t(65000 + 2500));
}

TEST(Rings, index_comes_from_the_used_ring_and_not_from_the_frontend) {
    Pool pool(63);
    NetRig rig(pool, {.start = 777, .run = false});
    for (auto& v : rig.vrings) v.base = 12345;
    rig.start();
    expect_working(rig, pool);
    EXPECT_EQ(rig.port->queue_stopped(1), 778);
}

TEST(Rings, stopped_queue_goes_on_where_it_was) {
    Pool pool(63);
    NetRig rig(pool);
    expect_working(rig, pool, 1);
    rig.send(frame(60, 2));
    EXPECT_EQ(rig.port->queue_stopped(1), 1);
    EXPECT_TRUE(rig.receive().empty());
    rig.port->queue_started(rig.vrings[1]);
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(60, 2));
}

TEST(Rings, queues_that_do_not_exist_are_ignored) {
    Pool pool(63);
    NetRig rig(pool);
    virtq::Vring v = rig.vrings[0];
    v.index = 2;
    rig.port->queue_started(v);
    EXPECT_EQ(rig.port->queue_stopped(2), 0);
    expect_working(rig, pool);
}

// --- unmapped while running ----------------------------------------------------------------------

struct Part {
    const char* name;
    uint64_t virtq::Vring::*at;
    Access need;
};
const Part kParts[] = {{"desc", &virtq::Vring::desc, Access::kRead},
                       {"avail", &virtq::Vring::avail, Access::kRead},
                       {"used", &virtq::Vring::used, Access::kReadWrite}};

TEST(Rings, unmapped_transmitq_stalls_untouched_and_resumes_on_other_pages) {
    Pool pool(63);
    for (const Part& part : kParts) {
        SCOPED_TRACE(part.name);
        NetRig rig(pool);
        expect_working(rig, pool, 1);
        const uint64_t iova = rig.vrings[1].*part.at;
        rig.unmap_page(iova);
        rig.send(frame(60, 2));
        const auto before = rig.space.snapshot();
        for (int i = 0; i < 10; ++i) EXPECT_TRUE(rig.receive().empty());
        rig.port->arm(0);
        rig.port->disarm(0);
        EXPECT_EQ(rig.space.snapshot(), before);
        EXPECT_EQ(rig.from().ring_unmapped.was(), 1u);
        EXPECT_EQ(rig.port->sleep_limit(0), microseconds(1000));
        expect_fault(rig, iova, part.need);

        // The guest moves the ring to another page. The old one must not matter any more.
        const size_t old = rig.page_of(iova), fresh = rig.take_page();
        std::memcpy(rig.space.host(fresh), rig.space.host(old), kPage);
        std::memset(rig.space.host(old), 0x5a, kPage);
        rig.map_page(iova, fresh);
        const auto got = rig.receive();
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0], frame(60, 2));
        EXPECT_TRUE(rig.tx->pop());
        expect_working(rig, pool, 3);
        for (size_t i = 0; i < kPage; ++i) ASSERT_EQ(rig.space.host(old)[i], std::byte{0x5a});
        EXPECT_EQ(rig.port->sleep_limit(0), microseconds::max());
        EXPECT_EQ(rig.from().ring_unmapped.was(), 1u);
    }
}

TEST(Rings, unmapped_receiveq_stalls_untouched_and_resumes) {
    Pool pool(63);
    for (const Part& part : kParts) {
        SCOPED_TRACE(part.name);
        NetRig rig(pool);
        expect_working(rig, pool, 1);
        const uint64_t iova = rig.vrings[0].*part.at;
        const size_t page = rig.page_of(iova);
        rig.unmap_page(iova);
        rig.post(100);
        const auto before = rig.space.snapshot();
        for (int i = 0; i < 3; ++i) EXPECT_FALSE(rig.deliver(pool.packet(frame(60))));
        EXPECT_EQ(rig.space.snapshot(), before);
        EXPECT_EQ(rig.to().ring_unmapped.was(), 1u);
        EXPECT_EQ(rig.to().not_running.was(), 3u);
        expect_fault(rig, iova, part.need);
        rig.map_page(iova, page);
        EXPECT_TRUE(rig.deliver(pool.packet(frame(60))));
        EXPECT_TRUE(rig.rx->pop());
    }
}

TEST(Rings, second_stall_is_reported_again) {
    Pool pool(63);
    NetRig rig(pool);
    const uint64_t iova = rig.vrings[1].avail;
    const size_t page = rig.page_of(iova);
    for (unsigned i = 1; i <= 2; ++i) {
        rig.unmap_page(iova);
        rig.receive();
        rig.receive();
        expect_fault(rig, iova, Access::kRead);
        EXPECT_EQ(rig.from().ring_unmapped.was(), i);
        rig.map_page(iova, page);
        expect_working(rig, pool, i);
    }
}

TEST(Rings, used_ring_that_becomes_read_only_is_not_written) {
    Pool pool(63);
    NetRig rig(pool);
    rig.set_rights(rig.vrings[1].used, Access::kRead);
    rig.send(frame(60));
    const auto before = rig.space.snapshot();
    EXPECT_TRUE(rig.receive().empty());
    EXPECT_EQ(rig.space.snapshot(), before);
    expect_fault(rig, rig.vrings[1].used, Access::kReadWrite);
    rig.set_rights(rig.vrings[1].used, Access::kReadWrite);
    EXPECT_EQ(rig.receive().size(), 1u);
}

TEST(Rings, started_before_they_are_mapped_they_begin_when_they_are) {
    Pool pool(63);
    NetRig rig(pool, {.start = 9, .run = false});
    const uint64_t iova = rig.vrings[1].used;
    const size_t page = rig.page_of(iova);
    rig.unmap_page(iova);
    rig.vrings[1].base = 4;
    rig.start();
    EXPECT_EQ(rig.port->queue_stopped(1), 4) << "all that is known";
    rig.port->queue_started(rig.vrings[1]);
    rig.map_page(iova, page);
    expect_working(rig, pool);
    EXPECT_EQ(rig.port->queue_stopped(1), 10);
}

TEST(Rings, other_unmaps_do_not_disturb) {
    Pool pool(63);
    NetRig rig(pool);
    for (unsigned i = 0; i < 10; ++i) {
        rig.map_range(0x70000000, kPage);
        rig.unmap_page(0x70000000);
        expect_working(rig, pool, i);
    }
    EXPECT_EQ(rig.from().ring_unmapped.was(), 0u);
}

TEST(Rings, endpoint_in_bypass_uses_guest_physical_addresses) {
    Pool pool(63);
    NetRig rig(pool, {.run = false});
    ASSERT_EQ(rig.table->detach(NetRig::kEndpoint, NetRig::kDomain), Status::kOk);
    rig.table->set_bypass(true);
    rig.settle();
    // The guest sees its memory at GPAs now.
    for (size_t p = 0; p < NetRig::kPages; ++p) rig.space.map(NetRig::gpa(p).value, p);
    virtq::Vring v = rig.vrings[1];
    v.desc = NetRig::gpa(10).value;
    v.avail = NetRig::gpa(11).value;
    v.used = NetRig::gpa(12).value;
    std::memset(rig.space.host(10), 0, 3 * kPage);
    ReferenceDriver driver(rig.space, v);
    rig.port->queue_started(v);
    rig.fill(NetRig::gpa(20).value, frame(60, 4));
    driver.chain({{NetRig::gpa(20).value, kHeader + 60, 0, 0}});
    driver.publish();
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(60, 4));
}

// --- where the addresses come from ---------------------------------------------------------------

/// A transmitq whose IOVAs look like RAM, as an aperture makes them, and what a VMM that takes them
/// for GPAs sends.
struct Aperture {
    explicit Aperture(NetRig& rig) {
        iovas = rig.vrings[1];
        iovas.desc = NetRig::kLowGpa + 16 * kPage;
        iovas.avail = NetRig::kLowGpa + 20 * kPage + 2;
        iovas.used = NetRig::kLowGpa + 22 * kPage + 4;
        rig.map_range(iovas.desc, wire::desc_table_bytes(iovas.size));
        rig.map_range(iovas.avail, wire::avail_ring_bytes(iovas.size));
        rig.map_range(iovas.used, wire::used_ring_bytes(iovas.size));
        rig.tx = std::make_unique<ReferenceDriver>(rig.space, iovas);
        uvas = iovas;
        for (uint64_t* a : {&uvas.desc, &uvas.avail, &uvas.used})
            *a = *a - NetRig::kLowGpa + NetRig::kLowUva;
    }
    virtq::Vring iovas, uvas;
};

TEST(RingAddresses, each_mode_finds_the_ring) {
    Pool pool(63);
    const uint64_t aware = bit(wire::VIRTIO_F_ACCESS_PLATFORM);
    struct Case {
        RingAddresses mode;
        bool acked;
        bool sent_as_uva;
    };
    const Case cases[] = {
        {RingAddresses::kAuto, true, false}, {RingAddresses::kAuto, false, true},
        {RingAddresses::kIova, true, false}, {RingAddresses::kIova, false, false},
        {RingAddresses::kUva, true, true},   {RingAddresses::kUva, false, true},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(int(c.mode) * 10 + c.acked);
        NetRig rig(pool, {.acked = c.acked ? kAcked : kAcked & ~aware,
                          .config = {.endpoint = NetRig::kEndpoint, .ring_addresses = c.mode},
                          .run = false});
        const Aperture aperture(rig);
        rig.port->queue_started(c.sent_as_uva ? aperture.uvas : aperture.iovas);
        rig.send(frame(60, 5));
        const auto got = rig.receive();
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0], frame(60, 5));
        EXPECT_TRUE(rig.tx->pop());
        // The other form is not taken for it.
        rig.port->queue_stopped(1);
        rig.port->queue_started(c.sent_as_uva ? aperture.iovas : aperture.uvas);
        rig.send(frame(60, 6));
        EXPECT_TRUE(rig.receive().empty());
        EXPECT_EQ(rig.from().ring_unusable.was() + rig.from().ring_unmapped.was(), 1u);
    }
}

TEST(RingAddresses, ring_that_cannot_be_is_counted_and_left_alone) {
    Pool pool(63);
    const auto refused = [&](uint64_t acked, auto change) {
        NetRig rig(pool, {.acked = acked, .run = false});
        virtq::Vring v = rig.vrings[1];
        v.base = 99;
        change(v);
        rig.port->queue_started(v);
        rig.send(frame(60));
        EXPECT_TRUE(rig.receive().empty());
        EXPECT_TRUE(rig.port->wake_fds(0).empty());
        EXPECT_EQ(rig.port->sleep_limit(0), microseconds::max());
        EXPECT_TRUE(rig.port->arm(0));
        EXPECT_TRUE(rig.take_faults().empty());
        EXPECT_EQ(rig.port->queue_stopped(1), 99);
        return rig.from().ring_unusable.was() == 1;
    };
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.size = 0; }));
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.size = 100; }));
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.size = 65536; }));
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.desc += 4; }));
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.avail += 1; }));
    EXPECT_TRUE(refused(kAcked, [](virtq::Vring& v) { v.used += 2; }));
    EXPECT_TRUE(refused(kAcked & ~bit(wire::VIRTIO_F_VERSION_1), [](virtq::Vring&) {}));
    EXPECT_TRUE(refused(kAcked & ~bit(wire::VIRTIO_F_ACCESS_PLATFORM), [](virtq::Vring&) {}))
        << "not a UVA of any region";
}

// --- memory --------------------------------------------------------------------------------------

TEST(Memory, table_that_moves_is_followed) {
    Pool pool(63);
    NetRig rig(pool);
    expect_working(rig, pool);
    const uint64_t at = rig.send(frame(60, 1));
    rig.port->queue_stopped(0);
    rig.port->queue_stopped(1);
    // The same guest memory, found elsewhere by us, and changed there.
    const std::unique_ptr<std::byte[]> raw(new std::byte[(NetRig::kPages + 1) * kPage]);
    std::byte* moved = raw.get() + (kPage - uintptr_t(raw.get()) % kPage);
    std::memcpy(moved, rig.space.host(0), NetRig::kPages * kPage);
    moved[rig.space.host_at(at + kHeader) - rig.space.host(0)] = std::byte{0xab};
    auto map = virtq::MemoryMap::create(
        {{Gpa{NetRig::kLowGpa}, Uva{0x1000}, NetRig::kLowPages * kPage, moved},
         {Gpa{NetRig::kHighGpa}, Uva{0x40000000}, (NetRig::kPages - NetRig::kLowPages) * kPage,
          moved + NetRig::kLowPages * kPage}});
    rig.port->memory_changed(std::make_shared<const virtq::MemoryMap>(std::move(*map)));
    const auto before = rig.space.snapshot();
    rig.start();
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0][0], std::byte{0xab});
    EXPECT_EQ(rig.space.snapshot(), before) << "the old place is not touched";
}

TEST(Memory, region_that_is_gone_makes_its_mappings_faults) {
    Pool pool(63);
    NetRig rig(pool);
    const uint64_t iova = 0x70000000;
    rig.map_page(iova, NetRig::kPages - 1);
    rig.port->queue_stopped(0);
    rig.port->queue_stopped(1);
    auto smaller = virtq::MemoryMap::create(
        {{Gpa{NetRig::kLowGpa}, Uva{1 << 20}, NetRig::kLowPages * kPage, rig.space.host(0)},
         {Gpa{NetRig::kHighGpa}, Uva{1 << 30}, (NetRig::kPages - NetRig::kLowPages - 1) * kPage,
          rig.space.host(NetRig::kLowPages)}});
    rig.port->memory_changed(std::make_shared<const virtq::MemoryMap>(std::move(*smaller)));
    rig.start();
    rig.tx->chain({{iova, 100, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, iova, Access::kRead, xlate::FaultReason::kUnknown);
}

// --- sleeping ------------------------------------------------------------------------------------

TEST(Sleep, running_transmitq_asks_for_kicks_only_when_armed) {
    Pool pool(63);
    NetRig rig(pool);
    EXPECT_EQ(rig.split(rig.tx).used_flags(), wire::VIRTQ_USED_F_NO_NOTIFY);
    EXPECT_EQ(rig.split(rig.rx).used_flags(), wire::VIRTQ_USED_F_NO_NOTIFY);
    EXPECT_TRUE(rig.port->arm(0));
    EXPECT_EQ(rig.split(rig.tx).used_flags(), 0);
    rig.port->disarm(0);
    EXPECT_EQ(rig.split(rig.tx).used_flags(), wire::VIRTQ_USED_F_NO_NOTIFY);
    rig.send(frame(60));
    EXPECT_FALSE(rig.port->arm(0)) << "there is a packet";
    EXPECT_EQ(rig.receive().size(), 1u);
    EXPECT_TRUE(rig.port->arm(0));
}

TEST(Sleep, kick_fds_are_those_of_running_queues) {
    Pool pool(63);
    NetRig rig(pool);
    const auto fds = rig.port->wake_fds(0);
    EXPECT_EQ(std::vector<int>(fds.begin(), fds.end()),
              (std::vector<int>{rig.kick[0].fd, rig.kick[1].fd}));
    rig.port->queue_stopped(0);
    EXPECT_EQ(rig.port->wake_fds(0).size(), 1u);
    rig.port->queue_stopped(1);
    EXPECT_TRUE(rig.port->wake_fds(0).empty());
}

TEST(Sleep, stalled_transmitq_is_looked_at_now_and_then) {
    Pool pool(63);
    NetRig rig(pool);
    EXPECT_EQ(rig.port->sleep_limit(0), microseconds::max());
    rig.unmap_page(rig.vrings[1].desc);
    EXPECT_TRUE(rig.port->arm(0));
    EXPECT_EQ(rig.port->sleep_limit(0), microseconds(1000));
    rig.port->queue_stopped(1);
    EXPECT_EQ(rig.port->sleep_limit(0), microseconds::max());
}

}  // namespace
}  // namespace viommu::net::test
