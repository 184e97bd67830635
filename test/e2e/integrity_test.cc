// SPDX-License-Identifier: BSD-3-Clause
/// Every byte of 1 GiB through each path: while mappings come and go, while connections are cut.
#include <chrono>

#include "pump.hh"
#include "suite_daemon.hh"
#include "two_guests.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

/// And a device of DPDK's: a net_ring gives back what it is sent.
const std::string kPaths = std::string(kTwoGuests) + R"(
  [[guest.net]]
  name = "net3"
  socket = "@DIR@/vm0-net3.sock"
  endpoint = "0000:00:07.0"
  peer = "vdev:net_ring0"
  lcore = 2
  [[guest.endpoint]]
  id = "0000:00:1f.0"
)";
constexpr EndpointId kUnrelated = 0xf8;

enum class Route { kOneGuest, kTwoGuests, kDevice };

struct Path {
    const char* name;
    Route route;
    bool packed;
    BufferMaps maps;
    RingAddresses rings;
    bool mergeable;
};
std::ostream& operator<<(std::ostream& out, const Path& path) { return out << path.name; }

/// Of both directions together.
constexpr uint64_t kBytes = uint64_t{kSanitized ? 64 : 1024} << 20;
constexpr unsigned kCuts = 12;

/// Maps and unmaps what no port uses, a few pages in every call.
class Churn {
  public:
    explicit Churn(Guest& guest) : iommu_(guest.iommu()) {
        EXPECT_EQ(iommu_.attach(kDomain, kUnrelated), Status::kOk);
        for (uint64_t i = 0; i < kPages; ++i) {
            const Iova at{(uint64_t{1} << 24) + i * 3 * kPageBytes};
            const IovaRange range{at, at + (kPageBytes - 1)};
            maps_.push_back(Request::map(kDomain, range, Gpa{i * kPageBytes}, Access::kReadWrite));
            unmaps_.push_back(Request::unmap(kDomain, range));
        }
    }
    void operator()() {
        const auto& next = mapped_ ? unmaps_ : maps_;
        iommu_.submit(next, answers_);
        for (const auto& a : answers_) ASSERT_EQ(a, Status::kOk);
        mapped_ = !mapped_;
        requests += next.size();
    }
    uint64_t requests = 0;

  private:
    static constexpr DomainId kDomain = 64;
    static constexpr uint64_t kPages = 8;

    IommuDriver& iommu_;
    std::vector<Request> maps_, unmaps_;
    std::vector<Answer> answers_{kPages};
    bool mapped_ = false;
};

class Integrity : public SuiteDaemon<kPaths>, public testing::WithParamInterface<Path> {
  protected:
    PortOptions port(const std::string& name, EndpointId endpoint) const {
        const Path& path = GetParam();
        PortOptions p{daemon->path(name + ".sock"), endpoint};
        p.net.tx_buffer_bytes = 65536 + 64;
        p.net.tx_segment_bytes = 16384;
        p.net.max_buffers = 256;
        p.net.buffer_maps = path.maps;
        if (path.packed) require(p.net, bit(wire::VIRTIO_F_RING_PACKED));
        if (path.mergeable) return p;
        p.net.features &= ~bit(wire::VIRTIO_NET_F_MRG_RXBUF);
        p.net.buffer_bytes = 65536 + 64;
        p.net.rx_segment_bytes = kPageBytes;
        p.net.rx_queue_size = 1024;
        return p;
    }
    void boot(const std::string& name, std::vector<PortOptions> ports) {
        GuestOptions o;
        o.iommu_socket = daemon->path(name + ".sock");
        o.ports = std::move(ports);
        o.ring_addresses = GetParam().rings;
        o.banks = {{Gpa{0}, uint64_t{128} << 20}};
        auto guest = Guest::create(o);
        ASSERT_TRUE(guest) << guest.error().message;
        guests.push_back(std::move(*guest));
        churns.emplace_back(*guests.back());
    }
    /// The guests of the path, and the two directions of it.
    void connect() {
        const auto join = [&](NetDriver& a, NetDriver& b) {
            drivers = {&a, &b};
            lanes.push_back(std::make_unique<Lane>(a, b, 1));
            if (&a != &b) lanes.push_back(std::make_unique<Lane>(b, a, 2));
        };
        switch (GetParam().route) {
            case Route::kOneGuest:
                boot("vm0", {port("vm0-net0", 0x20), port("vm0-net1", 0x28)});
                if (!HasFatalFailure()) join(guests[0]->port(0), guests[0]->port(1));
                break;
            case Route::kTwoGuests:
                boot("vm0", {port("vm0-net2", 0x30)});
                if (HasFatalFailure()) return;
                boot("vm1", {port("vm1-net0", 0x20)});
                if (!HasFatalFailure()) join(guests[0]->port(0), guests[1]->port(0));
                break;
            case Route::kDevice:
                boot("vm0", {port("vm0-net3", 0x38)});
                if (!HasFatalFailure()) join(guests[0]->port(0), guests[0]->port(0));
        }
    }
    void run(uint64_t bytes, const std::function<void()>& between) {
        std::vector<Lane*> all;
        for (const auto& lane : lanes) all.push_back(lane.get());
        pump(all, bytes / all.size(), between);
    }
    /// Now and then, or the rest would take too long.
    void churn() {
        if (rounds++ % 4 != 0) return;
        for (auto& c : churns) c();
    }
    uint64_t sum(uint64_t (Stream::*what)() const) const {
        uint64_t n = 0;
        for (const auto& lane : lanes) n += (lane->stream().*what)();
        return n;
    }
    uint64_t dropped() const {
        const auto counters = daemon->counters();
        EXPECT_TRUE(counters) << counters.error().message;
        return counters ? drops(*counters, "vm0/net3") : 0;
    }

    std::vector<std::unique_ptr<Guest>> guests;
    std::vector<Churn> churns;
    unsigned rounds = 0;
    std::vector<std::unique_ptr<Lane>> lanes;
    std::array<NetDriver*, 2> drivers{};
};

TEST_P(Integrity, every_byte_arrives_and_each_lost_packet_was_counted) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    connect();
    ASSERT_FALSE(HasFatalFailure());
    const uint64_t dropped_before = dropped();

    // Under a load of MAPs and UNMAPs: nothing is lost.
    run(kBytes / 2, [&] { churn(); });
    ASSERT_FALSE(HasFatalFailure());
    for (const auto& lane : lanes) {
        EXPECT_EQ(lane->stream().received(), lane->stream().sent());
        EXPECT_EQ(lane->stream().hash_out(), lane->stream().hash_in());
    }
    EXPECT_EQ(dropped(), dropped_before);

    // And while frontends vanish, wherever the daemon is in its rings.
    unsigned cuts = 0;
    uint64_t next_cut = sum(&Stream::sent_bytes);
    run(kBytes / 2, [&] {
        churn();
        if (HasFatalFailure() || cuts == kCuts || sum(&Stream::sent_bytes) < next_cut) return;
        const auto again = drivers[cuts++ % 2]->reconnect();
        ASSERT_TRUE(again) << again.error().message;
        next_cut += kBytes / 2 / (kCuts + 1);
    });
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(cuts, kCuts);
    const uint64_t lost = sum(&Stream::sent) - sum(&Stream::received);
    EXPECT_EQ(lost, dropped() - dropped_before);
    EXPECT_LT(lost, sum(&Stream::sent) / 4) << "most packets arrive";
    for (const NetDriver* driver : drivers) EXPECT_EQ(driver->counters().rx_malformed, 0u);

    uint64_t requests = 0;
    for (const auto& c : churns) requests += c.requests;
    fmt::print("{} packets, {} MiB, {} lost in {} cuts, {} requests beside; hash {}; {:.1f} s\n",
               sum(&Stream::sent), sum(&Stream::sent_bytes) >> 20, lost, cuts, requests,
               lanes[0]->stream().hash_in(),
               std::chrono::duration<double>(Clock::now() - begin).count());
    for (auto& guest : guests) {
        const auto down = guest->shut_down();
        EXPECT_TRUE(down) << down.error().message;
    }
}

constexpr auto kStrict = BufferMaps::kMappingPerPacket;
constexpr auto kDeferred = BufferMaps::kMappingPerPacketDeferred;
constexpr auto kUva = RingAddresses::kUva, kIova = RingAddresses::kIova;
INSTANTIATE_TEST_SUITE_P(
    All, Integrity,
    testing::Values(Path{"one_guest_split_strict", Route::kOneGuest, false, kStrict, kUva, true},
                    Path{"one_guest_split_deferred_big", Route::kOneGuest, false, kDeferred, kIova,
                         false},
                    Path{"one_guest_packed_strict_big", Route::kOneGuest, true, kStrict, kIova,
                         false},
                    Path{"one_guest_packed_deferred", Route::kOneGuest, true, kDeferred, kUva,
                         true},
                    Path{"two_guests_split_strict", Route::kTwoGuests, false, kStrict, kIova, true},
                    Path{"two_guests_split_deferred", Route::kTwoGuests, false, kDeferred, kUva,
                         true},
                    Path{"two_guests_packed_strict", Route::kTwoGuests, true, kStrict, kUva, true},
                    Path{"two_guests_packed_deferred", Route::kTwoGuests, true, kDeferred, kIova,
                         true},
                    Path{"device_split_strict", Route::kDevice, false, kStrict, kUva, true},
                    Path{"device_split_deferred", Route::kDevice, false, kDeferred, kIova, true},
                    Path{"device_packed_strict", Route::kDevice, true, kStrict, kIova, true},
                    Path{"device_packed_deferred", Route::kDevice, true, kDeferred, kUva, true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace viommu::e2e
