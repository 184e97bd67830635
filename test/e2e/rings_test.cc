// SPDX-License-Identifier: BSD-3-Clause
/// Every format of ring, at the request queue, the event queue and the network queues of a daemon
/// process; requests cut at every byte; who is signalled, and when.
#include <poll.h>
#include <unistd.h>

#include "traffic.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr uint64_t kPage = 4096;

struct Format {
    RingFormat ring;
    bool indirect;

    uint64_t features() const {
        return (ring.packed ? bit(wire::VIRTIO_F_RING_PACKED) : 0) |
               (ring.event_idx ? bit(wire::VIRTIO_F_EVENT_IDX) : 0) |
               (ring.in_order ? bit(wire::VIRTIO_F_IN_ORDER) : 0) |
               (indirect ? bit(wire::VIRTIO_F_INDIRECT_DESC) : 0);
    }
    std::string name() const {
        return std::string(ring.packed ? "packed" : "split") +
               (ring.event_idx ? "_event_idx" : "") + (ring.in_order ? "_in_order" : "") +
               (indirect ? "_indirect" : "");
    }
};

std::vector<Format> all_formats() {
    std::vector<Format> all;
    for (unsigned i = 0; i < 16; ++i)
        all.push_back({{(i & 8) != 0, (i & 4) != 0, (i & 2) != 0}, (i & 1) != 0});
    return all;
}

class Rings : public TwoPorts {
  protected:
    static IommuOptions iommu_with(const Format& format) {
        IommuOptions o;
        o.frontend.socket = daemon->path("iommu.sock");
        require(o, format.features());
        o.layout.indirect = format.indirect;
        return o;
    }
    std::mt19937 rng{1};
};

struct Shape {
    Format format;
    uint16_t size;
};

/// A chain may not be longer than its queue (2.7.5.3.1), and a request has two segments: at 1 the
/// request queue gets 2 entries, and packets one segment.
GuestOptions options_for(const Daemon& daemon, const Shape& shape) {
    const auto& [format, size] = shape;
    auto o = two_ports(daemon);
    o.ring_addresses = RingAddresses::kIova;
    o.banks = {{Gpa{0}, uint64_t{256} << 20}};  // little of it is touched
    o.iommu.request_queue_size = std::max<uint16_t>(size, 2);
    o.iommu.event_queue_size = size;
    require(o.iommu, format.features());
    o.iommu.layout.indirect = format.indirect;
    for (auto& port : o.ports) {
        port.net.rx_queue_size = port.net.tx_queue_size = size;
        port.net.max_buffers = 64;
        require(port.net, format.features());
        if (size > 1)
            port.net.tx_layout = format.indirect ? TxLayout::kIndirect : TxLayout::kTwoSegments;
    }
    return o;
}

class RingShapes : public Rings, public testing::WithParamInterface<Shape> {};

TEST_P(RingShapes, guest_attaches_maps_passes_packets_and_sees_faults) {
    const Shape& shape = GetParam();
    VIOMMU_NEEDS(daemon->path("iommu.sock"), shape.format.features());
    VIOMMU_NEEDS(daemon->path("net0.sock"), shape.format.features());
    auto made = Guest::create(options_for(*daemon, shape));
    ASSERT_TRUE(made) << made.error().message;
    Guest& guest = **made;
    EXPECT_FALSE(guest.probed(0).reserved.empty());

    // Answers belong to their requests: every third MAP overlaps the one before.
    const DomainId domain = guest.domain(0);
    std::vector<Request> batch;
    const uint64_t first = 0x1'0000'0000;
    for (uint64_t i = 0; i < 90; ++i) {
        const uint64_t at = first + (i % 3 == 2 ? i - 1 : i) * kPage;
        batch.push_back(Request::map(domain, {{at}, {at + kPage - 1}}, Gpa{0}, Access::kRead));
    }
    std::vector<Answer> answers(batch.size());
    guest.iommu().submit(batch, answers);
    for (uint64_t i = 0; i < answers.size(); ++i)
        ASSERT_EQ(answers[i], i % 3 == 2 ? Status::kInval : Status::kOk) << i;
    ASSERT_EQ(guest.iommu().unmap(domain, {{first}, {first + 90 * kPage - 1}}), Status::kOk);

    exchange(guest, 0, 1, 40, 1500, rng);
    ASSERT_FALSE(HasFatalFailure());
    exchange(guest, 1, 0, 40, 1500, rng);
    ASSERT_FALSE(HasFatalFailure());

    const guest::Segment unmapped{BusAddress{first}, 100};
    for (int i = 0; i < 3; ++i) {
        const auto sent = guest.port(0).transmit_segments({&unmapped, 1});
        ASSERT_TRUE(sent && *sent);
        const auto fault = guest.iommu().poll_fault(Milliseconds(5000));
        ASSERT_TRUE(fault) << fault.error().message;
        ASSERT_TRUE(*fault) << "no fault came";
        EXPECT_EQ((*fault)->endpoint, kEndpoint0);
        EXPECT_EQ((*fault)->address, Iova{first});
        ASSERT_TRUE(guest.port(0).drain(Milliseconds(5000)));
    }
    const auto down = guest.shut_down();
    ASSERT_TRUE(down) << down.error().message;
}

std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (const auto& f : all_formats())
        for (const uint16_t size : {1, 2, 3, 64, 32768})
            if (DriverQueue::is_size(size, f.ring)) all.push_back({f, size});
    return all;
}

INSTANTIATE_TEST_SUITE_P(All, RingShapes, testing::ValuesIn(shapes()), [](const auto& info) {
    return info.param.format.name() + "_" + std::to_string(info.param.size);
});

class RingFormats : public Rings, public testing::WithParamInterface<Format> {
  protected:
    std::unique_ptr<IommuDriver> connect(IommuOptions options) {
        auto driver = IommuDriver::start(*memory, options);
        EXPECT_TRUE(driver) << driver.error().message;
        return driver ? std::move(*driver) : nullptr;
    }
    std::unique_ptr<Memory> memory = std::move(*Memory::create(uint64_t{32} << 20));
};

TEST_P(RingFormats, request_cut_at_every_byte_is_understood) {
    const Format& format = GetParam();
    VIOMMU_NEEDS(daemon->path("iommu.sock"), format.features());
    auto options = iommu_with(format);
    options.request_queue_size = 64;
    auto iommu = connect(options);
    ASSERT_TRUE(iommu);
    ASSERT_EQ(iommu->attach(1, kEndpoint0), Status::kOk);
    std::vector<RequestLayout> layouts;
    for (uint32_t at = 1; at < sizeof(wire::virtio_iommu_req_map); ++at)
        layouts.push_back({{at}, {1 + at % 3}, 0, format.indirect});
    layouts.push_back({{}, {}, 1, format.indirect});
    layouts.push_back({{}, {}, 3, format.indirect});
    const IovaRange range{{kPage}, {3 * kPage - 1}};
    for (const auto& layout : layouts) {
        const auto set = iommu->set_layout(layout);
        ASSERT_TRUE(set) << set.error().message;
        const uint32_t at = layout.cut_out.empty() ? 0 : layout.cut_out[0];
        ASSERT_EQ(iommu->map(1, range, Gpa{0}), Status::kOk) << "cut at " << at;
        ASSERT_EQ(iommu->map(1, range, Gpa{0}), Status::kInval) << "cut at " << at;
        ASSERT_EQ(iommu->unmap(1, range), Status::kOk) << "cut at " << at;
    }
}

TEST_P(RingFormats, probe_of_single_bytes_fills_a_long_chain) {
    const Format& format = GetParam();
    VIOMMU_NEEDS(daemon->path("iommu.sock"), format.features());
    auto options = iommu_with(format);
    options.request_queue_size = 1024;
    auto iommu = connect(options);
    ASSERT_TRUE(iommu);
    const auto whole = iommu->probe(kEndpoint0);
    ASSERT_EQ(whole, Status::kOk);
    const auto set = iommu->set_layout({{}, {}, 1, format.indirect});
    ASSERT_TRUE(set) << set.error().message;
    for (int i = 0; i < 3; ++i) {  // the ring wraps within a chain
        const auto pieces = iommu->probe(kEndpoint0);
        ASSERT_EQ(pieces, Status::kOk);
        EXPECT_EQ(pieces.properties, whole.properties);
    }
}

/// What an eventfd has counted once something is there.
uint64_t count_signals(int fd) {
    pollfd p{fd, POLLIN, 0};
    uint64_t count = 0;
    if (::poll(&p, 1, 5000) != 1 || ::read(fd, &count, sizeof count) != sizeof count) return 0;
    return count;
}

TEST_P(RingFormats, answers_are_signalled_exactly_when_asked_for) {
    const Format& format = GetParam();
    VIOMMU_NEEDS(daemon->path("iommu.sock"), format.features());
    auto options = iommu_with(format);
    options.request_queue_size = 64;
    auto iommu = connect(options);
    ASSERT_TRUE(iommu);
    DriverQueue& queue = iommu->request_queue();
    const auto ask = [&] {
        ASSERT_EQ(iommu->unmap(1, {{kPage}, {2 * kPage - 1}}), Status::kNoEnt);
    };
    drain_eventfd(iommu->request_call_fd());  // starting a queue may signal
    const unsigned descriptors = format.indirect ? 1 : 2;
    for (unsigned round = 0; round < 40; ++round) {
        for (int i = 0; i < 3; ++i) ask();
        if (!format.ring.event_idx) {
            ASSERT_FALSE(queue.want_interrupts(true));
        } else {
            // Not for the next answer, nor for the one after it, but for the third.
            const unsigned step = format.ring.packed ? descriptors : 1;
            ASSERT_FALSE(queue.want_interrupts(true, uint16_t(2 * step)));
            ask(), ask();
        }
        ask();
        ASSERT_EQ(count_signals(iommu->request_call_fd()), 1u) << "round " << round;
        queue.want_interrupts(false);
    }
}

TEST_P(RingFormats, device_reset_and_reconnection_find_the_ring_again) {
    const Format& format = GetParam();
    VIOMMU_NEEDS(daemon->path("iommu.sock"), format.features());
    for (const Vmm vmm : {Vmm::kCloudHypervisor, Vmm::kQemu}) {
        auto options = iommu_with(format);
        options.frontend.vmm = vmm;
        options.request_queue_size = 8;
        auto iommu = connect(options);
        ASSERT_TRUE(iommu);
        const IovaRange range{{kPage}, {2 * kPage - 1}};
        for (int i = 0; i < 3; ++i) {
            ASSERT_EQ(iommu->attach(1, kEndpoint0), Status::kOk);
            ASSERT_EQ(iommu->map(1, range, Gpa{0}), Status::kOk);
            // Of a packed ring no VMM can guess where it was: this one has been told.
            const auto again = format.ring.packed
                                   ? iommu->reconnect(iommu->request_queue().base())
                                   : iommu->reconnect();
            ASSERT_TRUE(again) << again.error().message;
            ASSERT_EQ(iommu->map(1, range, Gpa{0}), Status::kInval) << "it is there";
            ASSERT_TRUE(iommu->reset());
            ASSERT_EQ(iommu->map(1, range, Gpa{0}), Status::kNoEnt) << "it is gone";
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, RingFormats, testing::ValuesIn(all_formats()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace viommu::e2e
