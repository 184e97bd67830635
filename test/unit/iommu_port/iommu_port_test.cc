// SPDX-License-Identifier: BSD-3-Clause
/// IommuPort with rings in real (memfd) guest memory and no socket: the test is the event thread,
/// the polling thread and a reader, one after the other, so every interleaving here is deliberate.
#include "iommu_port.hh"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>

#include "driver_queue.hh"

namespace viommu::vhost {
namespace {

using namespace wire;

constexpr EndpointId kEndpoint = 0x20;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kRam = uint64_t{4} << 20;

struct IommuPortTest : testing::Test {
    IommuPortTest() {
        device::Config config;
        config.bypass = false;
        config.endpoints = {kEndpoint};
        config.max_domains = 4;
        device = std::move(*device::Device::create(config));
        port = std::make_unique<IommuPort>(*device, poller);
        reader.emplace(
            std::move(*xlate::Reader::create(device->table(), device->faults(), kEndpoint)));
        const auto& bank = memory->regions()[0];
        map = std::make_shared<virtq::MemoryMap>(*virtq::MemoryMap::create(
            {{bank.first, bank.uva(), bank.bytes, bank.data}}));
        for (int& fd : call) fd = eventfd(0, EFD_NONBLOCK);
        port->memory_changed(map);
        new_rings();
        start(VIRTIO_IOMMU_VQ_REQUEST);
        start(VIRTIO_IOMMU_VQ_EVENT);
    }
    ~IommuPortTest() override {
        stop(VIRTIO_IOMMU_VQ_REQUEST);
        stop(VIRTIO_IOMMU_VQ_EVENT);
        port.reset();
        for (int fd : call) close(fd);
    }

    /// What a driver does at DRIVER_OK: zeroed rings.
    void new_rings() {
        for (int i = 0; i < 2; ++i) new_ring(i);
        buffer = *dma.allocate(8 * kPage);
    }
    /// What it does at a queue reset.
    void new_request_ring() { new_ring(VIRTIO_IOMMU_VQ_REQUEST); }
    void new_ring(int i) {
        if (rings[i]) std::memset(rings[i]->data[0], 0, kPage);
        if (!rings[i]) rings[i] = *dma.allocate(guest::DriverQueue::ring_bytes(16));
        queues[i] = std::make_unique<guest::DriverQueue>(*rings[i], 16, -1);
    }
    virtq::Vring vring(uint16_t index) const {
        const auto uva = [&](guest::BusAddress a) { return memory->uva({a.value})->value; };
        const auto& q = *queues[index];
        return {.index = index,
                .size = 16,
                .desc = uva(q.desc()),
                .avail = uva(q.avail()),
                .used = uva(q.used()),
                .base = 0,
                .kick_fd = -1,
                .call_fd = call[index]};
    }
    void start(uint16_t index) { port->queue_started(vring(index)); }
    uint16_t stop(uint16_t index) { return port->queue_stopped(index, Handler::Stop::kGetBase); }

    /// Put one request into the ring, its bytes at slot `n` of the buffer.
    template <class Req>
    void add(const Req& req, unsigned n, uint32_t writable = 4) {
        const uint32_t readable = uint32_t(offsetof(Req, tail));
        const uint64_t at = n * 256;
        buffer.write(at, std::as_bytes(std::span(&req, 1)));
        const guest::Segment out{buffer.bus + at, readable};
        const guest::Segment in{buffer.bus + at + 128, writable};
        ASSERT_TRUE(requests().add({&out, 1}, {&in, 1}, n));
        requests().publish();
    }
    void attach(unsigned n, DomainId d = 1) {
        virtio_iommu_req_attach r{};
        r.head.type = VIRTIO_IOMMU_T_ATTACH;
        r.domain = d;
        r.endpoint = kEndpoint;
        add(r, n);
    }
    void map_page(unsigned n, uint64_t page) {
        virtio_iommu_req_map r{};
        r.head.type = VIRTIO_IOMMU_T_MAP;
        r.domain = 1;
        r.virt_start = page * kPage;
        r.virt_end = page * kPage + kPage - 1;
        r.flags = 3;
        add(r, n);
    }
    void unmap_page(unsigned n, uint64_t page) {
        virtio_iommu_req_unmap r{};
        r.head.type = VIRTIO_IOMMU_T_UNMAP;
        r.domain = 1;
        r.virt_start = page * kPage;
        r.virt_end = page * kPage + kPage - 1;
        add(r, n);
    }
    int status(unsigned n) {
        std::byte s[1];
        buffer.read(n * 256 + 128, s);
        return int(s[0]);
    }
    /// Answers that have arrived, as "slot:bytes" each.
    std::vector<std::pair<uint64_t, uint32_t>> answers() {
        std::vector<std::pair<uint64_t, uint32_t>> out;
        while (auto c = requests().pop()) out.emplace_back(c->token, c->bytes);
        EXPECT_EQ(requests().broken(), "");
        return out;
    }
    void poll_until_answered() {
        for (int i = 0; i < 10; ++i) port->poll();
    }
    bool signalled(uint16_t index) {
        uint64_t n;
        return read(call[index], &n, sizeof n) == sizeof n;
    }
    xlate::Translation access(uint64_t iova, Access need = Access::kRead) {
        reader->enter();
        const auto t = reader->translate({iova}, 1, need);
        if (!t) reader->report({iova}, need, t.fault());
        reader->leave();
        return t;
    }
    guest::DriverQueue& requests() { return *queues[VIRTIO_IOMMU_VQ_REQUEST]; }
    guest::DriverQueue& events() { return *queues[VIRTIO_IOMMU_VQ_EVENT]; }

    std::unique_ptr<guest::Memory> memory = std::move(*guest::Memory::create(kRam));
    guest::OffsetDma dma{*memory};
    std::optional<guest::DmaBlock> rings[2];
    std::unique_ptr<guest::DriverQueue> queues[2];
    guest::DmaBlock buffer;
    int call[2];
    poll::Poller poller{poll::Policy::kBusy};
    std::shared_ptr<const virtq::MemoryMap> map;
    std::unique_ptr<device::Device> device;
    std::unique_ptr<IommuPort> port;
    std::optional<xlate::Reader> reader;
};

using Answers = std::vector<std::pair<uint64_t, uint32_t>>;

TEST_F(IommuPortTest, dirty_log_is_offered_on_request_only) {
    constexpr uint64_t kLogAll = uint64_t{1} << VHOST_F_LOG_ALL;
    EXPECT_EQ(port->features() & kLogAll, 0u) << "a VMM must not migrate what would be lost";
    EXPECT_EQ(IommuPort(*device, poller, true).features(), port->features() | kLogAll);
}

TEST_F(IommuPortTest, requests_of_one_pass_are_answered_in_order_with_one_signal) {
    attach(0);
    map_page(1, 5);
    map_page(2, 5);
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{0, 4}, {1, 4}, {2, 4}}));
    EXPECT_EQ(status(0), int(Status::kOk));
    EXPECT_EQ(status(1), int(Status::kOk));
    EXPECT_EQ(status(2), int(Status::kInval));
    EXPECT_TRUE(signalled(0));
    EXPECT_FALSE(signalled(0));
    EXPECT_EQ(port->stats().passes.was(), 1u);
}

TEST_F(IommuPortTest, map_is_answered_at_once_while_a_reader_is_inside) {
    attach(0);
    poll_until_answered();
    answers();
    reader->enter();
    map_page(1, 5);
    port->poll();
    EXPECT_EQ(answers().size(), 1u);
    reader->leave();
}

TEST_F(IommuPortTest, unmap_is_answered_only_after_the_reader_has_left) {
    attach(0);
    map_page(1, 5);
    poll_until_answered();
    answers();
    reader->enter();
    EXPECT_TRUE(reader->translate({5 * kPage}, 1, Access::kRead));
    map_page(2, 6);
    unmap_page(3, 5);
    poll_until_answered();
    EXPECT_TRUE(answers().empty()) << "the pass waits as one";
    reader->leave();
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{2, 4}, {3, 4}}));
    EXPECT_FALSE(access(5 * kPage));
    EXPECT_TRUE(access(6 * kPage));
    EXPECT_EQ(port->stats().grace_periods.was(), 2u);  // the ATTACH's and this
}

TEST_F(IommuPortTest, stop_answers_what_was_taken) {
    attach(0);
    map_page(1, 5);
    unmap_page(2, 5);
    port->poll();  // takes all three; the answers wait for a grace period
    EXPECT_TRUE(answers().empty());
    EXPECT_EQ(stop(VIRTIO_IOMMU_VQ_REQUEST), 3);
    EXPECT_EQ(answers().size(), 3u);
}

TEST_F(IommuPortTest, same_ring_again_is_a_resume) {
    attach(0);
    map_page(1, 5);
    poll_until_answered();
    EXPECT_EQ(stop(VIRTIO_IOMMU_VQ_REQUEST), 2);
    EXPECT_TRUE(access(5 * kPage)) << "packets go on while the VM pauses";
    start(VIRTIO_IOMMU_VQ_REQUEST);
    EXPECT_TRUE(access(5 * kPage));
    EXPECT_EQ(device->stats().resets.was(), 1u) << "the first start only";
    answers();
    map_page(2, 6);
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{2, 4}}));
}

TEST_F(IommuPortTest, fresh_ring_at_the_same_address_is_a_reset) {
    attach(0);
    map_page(1, 5);
    poll_until_answered();
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    new_rings();
    start(VIRTIO_IOMMU_VQ_REQUEST);
    EXPECT_EQ(device->stats().resets.was(), 2u);
    EXPECT_EQ(access(5 * kPage).fault(), xlate::FaultReason::kDomain);
    attach(0);
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{0, 4}}));
}

TEST_F(IommuPortTest, fresh_request_ring_alone_is_a_queue_reset_if_negotiated) {
    constexpr uint64_t kReset = uint64_t{1} << VIRTIO_F_RING_RESET;
    for (const uint64_t features : {kReset, uint64_t{0}}) {
        stop(VIRTIO_IOMMU_VQ_REQUEST);
        stop(VIRTIO_IOMMU_VQ_EVENT);
        new_rings();
        port->features_acked(features);
        start(VIRTIO_IOMMU_VQ_REQUEST);
        start(VIRTIO_IOMMU_VQ_EVENT);
        attach(0);
        map_page(1, 5);
        poll_until_answered();
        EXPECT_EQ(answers().size(), 2u);
        stop(VIRTIO_IOMMU_VQ_REQUEST);
        new_request_ring();
        start(VIRTIO_IOMMU_VQ_REQUEST);
        EXPECT_EQ(bool(access(5 * kPage)), features == kReset);
    }
}

TEST_F(IommuPortTest, both_rings_fresh_is_a_reset_with_queue_reset_negotiated_too) {
    port->features_acked(uint64_t{1} << VIRTIO_F_RING_RESET);
    attach(0);
    map_page(1, 5);
    poll_until_answered();
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    stop(VIRTIO_IOMMU_VQ_EVENT);
    new_rings();
    start(VIRTIO_IOMMU_VQ_REQUEST);
    start(VIRTIO_IOMMU_VQ_EVENT);
    EXPECT_FALSE(access(5 * kPage));
}

TEST_F(IommuPortTest, fresh_ring_after_65536_requests_is_a_reset_too) {
    attach(0);
    poll_until_answered();
    answers();
    for (unsigned i = 1; i < 65536; ++i) {
        unmap_page(1, 9);
        port->poll();
        ASSERT_EQ(answers().size(), 1u);
    }
    EXPECT_EQ(stop(VIRTIO_IOMMU_VQ_REQUEST), 0);
    new_rings();
    start(VIRTIO_IOMMU_VQ_REQUEST);
    EXPECT_EQ(device->stats().resets.was(), 2u);
}

// 5.13.6-D2
TEST_F(IommuPortTest, unreadable_request_goes_back_with_length_0) {
    virtio_iommu_req_attach r{};
    r.head.type = 0x77;
    add(r, 0);
    attach(1);
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{0, 0}, {1, 4}}));
}

TEST_F(IommuPortTest, buffers_outside_guest_memory_go_back_with_length_0) {
    virtio_iommu_req_attach r{};
    r.head.type = VIRTIO_IOMMU_T_ATTACH;
    r.domain = 1;
    r.endpoint = kEndpoint;
    buffer.write(0, std::as_bytes(std::span(&r, 1)));
    const guest::Segment good{buffer.bus, 20}, good_in{buffer.bus + 128, 4};
    const guest::Segment bad{guest::BusAddress{kRam}, 20}, bad_in{guest::BusAddress{kRam - 2}, 4};
    ASSERT_TRUE(requests().add({&bad, 1}, {&good_in, 1}, 0));
    ASSERT_TRUE(requests().add({&good, 1}, {&bad_in, 1}, 1));
    requests().publish();
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{0, 0}, {1, 0}}));
    EXPECT_EQ(port->stats().unreachable.was(), 2u);
}

TEST_F(IommuPortTest, ring_outside_guest_memory_is_not_started) {
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    auto v = vring(VIRTIO_IOMMU_VQ_REQUEST);
    v.used += kRam;
    port->queue_started(v);
    EXPECT_EQ(port->stats().unusable_queues.was(), 1u);
    attach(0);
    poll_until_answered();
    EXPECT_TRUE(answers().empty());
}

// 5.13.6.9-N2
TEST_F(IommuPortTest, fault_waits_for_a_buffer_and_arrives) {
    access(0x1234, Access::kWrite);
    poll_until_answered();
    EXPECT_EQ(device->stats().faults_reported.was(), 0u);
    EXPECT_EQ(device->stats().faults_dropped_no_buffer.was(), 0u);
    const guest::Segment in{buffer.bus, 24};
    ASSERT_TRUE(events().add({}, {&in, 1}, 7));
    events().publish();
    poll_until_answered();
    const auto c = events().pop();
    ASSERT_TRUE(c);
    EXPECT_EQ(c->bytes, 24u);
    virtio_iommu_fault f;
    buffer.read(0, std::as_writable_bytes(std::span(&f, 1)));
    EXPECT_EQ(f.endpoint, kEndpoint);
    EXPECT_EQ(f.address, 0x1234u);
    EXPECT_EQ(f.reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
    EXPECT_EQ(f.flags, VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS);
    EXPECT_TRUE(signalled(1));
    EXPECT_EQ(device->stats().faults_reported.was(), 1u);
}

// 5.13.6.9-N2, 5.13.6.9-D5, v0.5-1
TEST_F(IommuPortTest, fault_without_room_or_queue_is_dropped_and_counted) {
    const guest::Segment small{buffer.bus, 23};
    ASSERT_TRUE(events().add({}, {&small, 1}, 0));
    events().publish();
    access(0x1234);
    poll_until_answered();
    ASSERT_TRUE(events().pop());
    EXPECT_EQ(device->stats().faults_dropped_no_buffer.was(), 1u);
    stop(VIRTIO_IOMMU_VQ_EVENT);
    access(0x1234);
    poll_until_answered();
    EXPECT_EQ(device->stats().faults_dropped_no_buffer.was(), 2u);
}

TEST_F(IommuPortTest, bypass_written_to_config_is_in_force_when_the_write_returns) {
    EXPECT_FALSE(access(0x3000));
    const std::byte one{1};
    port->config_write(offsetof(virtio_iommu_config, bypass), {&one, 1});
    EXPECT_EQ(access(0x3000).gpa(), Gpa{0x3000});
    attach(0);
    poll_until_answered();
    EXPECT_EQ(answers().size(), 1u) << "the queue goes on";
}

// 5.13.4-D4
TEST_F(IommuPortTest, bypass_is_initial_for_a_new_frontend_and_kept_for_one_that_resumes) {
    const std::byte one{1};
    port->config_write(offsetof(virtio_iommu_config, bypass), {&one, 1});
    attach(0);
    poll_until_answered();
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    port->connected();
    EXPECT_FALSE(device->table().bypass());
    start(VIRTIO_IOMMU_VQ_REQUEST);
    EXPECT_TRUE(device->table().bypass()) << "the same VM goes on";
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    port->connected();
    new_rings();
    start(VIRTIO_IOMMU_VQ_REQUEST);
    EXPECT_FALSE(device->table().bypass()) << "another one began";
}

TEST_F(IommuPortTest, config_write_that_changes_nothing_does_not_stop_the_port) {
    attach(0);
    map_page(1, 5);
    poll_until_answered();
    answers();
    reader->enter();
    unmap_page(2, 5);
    poll_until_answered();
    EXPECT_TRUE(answers().empty()) << "the reader is waited for";
    const std::byte zero{0}, two{2};
    // Stopping the port would wait for the reader, too, and these would never return.
    port->config_write(offsetof(virtio_iommu_config, bypass), {&zero, 1});
    port->config_write(offsetof(virtio_iommu_config, bypass), {&two, 1});
    port->config_write(0, {&two, 1});
    reader->leave();
    poll_until_answered();
    EXPECT_EQ(answers(), (Answers{{2, 4}}));
}

TEST_F(IommuPortTest, arm_refuses_sleep_while_there_is_work) {
    EXPECT_TRUE(port->arm());
    port->disarm();
    attach(0);
    EXPECT_FALSE(port->arm());
    port->disarm();
    port->poll();
    EXPECT_FALSE(port->arm()) << "answers wait for readers";
    poll_until_answered();
    EXPECT_TRUE(port->arm());
}

TEST_F(IommuPortTest, broken_ring_stops_and_a_restart_mends_it) {
    attach(0);
    poll_until_answered();
    answers();
    auto* avail_idx = reinterpret_cast<uint16_t*>(
        rings[0]->at(requests().avail().value - rings[0]->bus.value + 2));
    *avail_idx = uint16_t(*avail_idx + 1000);
    poll_until_answered();
    EXPECT_TRUE(answers().empty());
    EXPECT_EQ(stop(VIRTIO_IOMMU_VQ_REQUEST), 1);
    new_rings();
    start(VIRTIO_IOMMU_VQ_REQUEST);
    attach(0);
    poll_until_answered();
    EXPECT_EQ(answers().size(), 1u);
}

TEST_F(IommuPortTest, disconnect_lets_go_of_the_guests_memory) {
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    stop(VIRTIO_IOMMU_VQ_EVENT);
    const std::weak_ptr<const virtq::MemoryMap> held = map;
    map.reset();
    EXPECT_FALSE(held.expired());
    port->disconnected();
    EXPECT_TRUE(held.expired());
}

/// QEMU takes memory away and gives it back with rings in it.
TEST_F(IommuPortTest, queue_that_cannot_be_used_stops_where_it_was_started) {
    stop(VIRTIO_IOMMU_VQ_REQUEST);
    auto nowhere = vring(VIRTIO_IOMMU_VQ_REQUEST);
    nowhere.desc = 16;
    nowhere.base = 77;
    port->queue_started(nowhere);
    EXPECT_EQ(port->stats().unusable_queues.was(), 1u);
    EXPECT_EQ(stop(VIRTIO_IOMMU_VQ_REQUEST), 77u);
}

}  // namespace
}  // namespace viommu::vhost
