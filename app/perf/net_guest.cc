// SPDX-License-Identifier: BSD-3-Clause
#include "net_guest.hh"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <unistd.h>

#include "clock.hh"
#include "stats.hh"

namespace viommu::perf {

using guest::bit;
using guest::BufferMaps;
using guest::NetDriver;

namespace {

constexpr unsigned kWorker = 1;

/// The device's thread and its work. Handed over with release and acquire of our own: EAL's are
/// in a library that TSan does not see into.
struct Job {
    std::function<void()> work;
    std::atomic<bool> running{false};
};
Job job;

BufferMaps buffer_maps(Maps maps) {
    switch (maps) {
        case Maps::kDeferred:
            return BufferMaps::kMappingPerPacketDeferred;
        case Maps::kStrict:
            return BufferMaps::kMappingPerPacket;
        default:  // the same pages whatever maps them: also what is mapped in whole
            return BufferMaps::kMappingPerBuffer;
    }
}

}  // namespace

Result<void> DeviceThread::start_eal(unsigned guest_cpu, unsigned device_cpu) {
    std::vector<std::string> arguments = {
        "dpdk-viommu-perf", "--no-pci", "--no-huge", "--no-shconf", "--no-telemetry", "-m", "128",
        "--lcores", fmt::format("0@{},{}@{}", guest_cpu, kWorker, device_cpu), "--main-lcore", "0",
        fmt::format("--file-prefix=dpdk-viommu-perf-{}", getpid()), "--log-level=error"};
    std::vector<char*> argv;
    for (auto& a : arguments) argv.push_back(a.data());
    if (rte_eal_init(int(argv.size()), argv.data()) < 0)
        return fail("the EAL does not start: {}", rte_strerror(rte_errno));
    return {};
}

void DeviceThread::run(std::function<void()> work) {
    job.work = std::move(work);
    job.running.store(true, std::memory_order_release);  // pairs with the worker's
    rte_eal_remote_launch(
        [](void*) {
            (void)job.running.load(std::memory_order_acquire);  // pairs with run()
            job.work();
            job.running.store(false, std::memory_order_release);  // pairs with join()
            return 0;
        },
        nullptr, kWorker);
}

void DeviceThread::join() {
    rte_eal_wait_lcore(kWorker);
    while (job.running.load(std::memory_order_acquire))  // pairs with the worker's
        guest::cpu_relax();
}

guest::NetOptions NetSubject::net_options(const PacketCase& c, Maps maps, bool translated,
                                          const std::string& socket) {
    guest::NetOptions o;
    o.frontend.socket = socket;
    o.frontend.vmm = guest::Vmm::kQemu;
    o.frontend.ring_addresses =
        translated ? guest::RingAddresses::kIova : guest::RingAddresses::kUva;
    o.frontend.protocol_features = bit(wire::VHOST_USER_PROTOCOL_F_MQ) |
                                   bit(wire::VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                                   bit(wire::VHOST_USER_PROTOCOL_F_BACKEND_REQ);
    o.rx_queue_size = o.tx_queue_size = kPacketRing;
    o.buffer_maps = buffer_maps(maps);
    // A receive buffer is half a page, and larger packets take several; one to send is a piece.
    o.buffer_bytes = 2048;
    if (c.bytes + sizeof(wire::virtio_net_hdr) > o.buffer_bytes)
        o.tx_buffer_bytes = uint32_t(c.bytes + sizeof(wire::virtio_net_hdr));
    o.features = bit(wire::VIRTIO_F_VERSION_1) | bit(wire::VIRTIO_NET_F_MRG_RXBUF);
    if (translated) o.features |= bit(wire::VIRTIO_F_ACCESS_PLATFORM);
    if (c.packed) o.features |= bit(wire::VIRTIO_F_RING_PACKED);
    o.required = o.features;
    return o;
}

Result<bool> NetSubject::send() {
    const auto n = driver().transmit(kPacketBurst, [&](std::span<std::byte> room) {
        const auto packet = room.first(case_.bytes);
        if (thorough_) [[unlikely]]
            Content::write(packet, 0, sent_);
        Content::stamp(packet, sent_++);
        return case_.bytes;
    });
    if (!n) return tl::unexpected(n.error());
    return *n != 0;
}

Result<bool> NetSubject::receive() {
    const auto n = driver().receive(kPacketBurst, [&](std::span<const std::byte> packet) {
        const uint64_t number = received_++;
        const bool right = packet.size() == case_.bytes && Content::number(packet) == number &&
                           (!thorough_ || Content::is(packet, 0, number));
        wrong_ += !right;
    });
    if (!n) return tl::unexpected(n.error());
    return *n != 0;
}

/// A round of the guest's loop.
Result<void> NetSubject::step() {
    bool stuck = false;
    if (case_.from_guest()) {
        const auto done = send();
        if (!done) return tl::unexpected(done.error());
        stuck |= !*done;
    }
    if (case_.to_guest()) {
        const auto done = receive();
        if (!done) return tl::unexpected(done.error());
        stuck |= !*done;
    }
    if (!stuck) return {};
    const auto done = attend();
    if (!done) return tl::unexpected(done.error());
    if (!*done) guest::cpu_relax();
    return {};
}

/// Fill the transmitq, let the device have its turn, empty the receiveq.
Result<void> NetSubject::turn() {
    if (case_.from_guest())
        for (bool more = true; more;) {
            const uint64_t before = sent_;
            if (auto done = send(); !done) return tl::unexpected(done.error());
            more = sent_ - before == kPacketBurst;
        }
    traffic().begin_turn();
    while (!traffic().turn_is_over()) guest::cpu_relax();
    if (!case_.to_guest()) return {};
    for (bool more = true; more;) {
        const auto done = receive();
        if (!done) return tl::unexpected(done.error());
        more = *done;
    }
    return {};
}

Result<void> NetSubject::look() const {
    auto& t = const_cast<NetSubject*>(this)->traffic();
    if (t.wrong() != 0)
        return fail("{} of {} packets from the guest came lost, twice, out of order or changed",
                    t.wrong(), t.taken());
    if (wrong_ != 0)
        return fail("{} of {} packets to the guest came lost, twice, out of order or changed",
                    wrong_, received_);
    return {};
}

/// Until every packet that one end has sent is the other's.
Result<void> NetSubject::drain() {
    traffic().set_mode(Traffic::Mode::kDrain);
    const uint64_t end = Clock::ticks() + Clock::ticks_in(patience_ns_);
    for (;;) {
        const bool quiet = traffic().is_quiet();
        const uint64_t taken = traffic().taken(), given = traffic().given();
        if (case_.to_guest())
            if (auto done = receive(); !done) return tl::unexpected(done.error());
        if (case_.from_guest())
            if (auto ok = driver().reap(); !ok) return ok;
        if (quiet && taken == sent_ && given == received_) return look();
        if (Clock::ticks() > end)
            return fail("sent {}, taken {}; given {}, received {}: packets are missing", sent_,
                        taken, given, received_);
        if (auto done = attend(); !done) return tl::unexpected(done.error());
        guest::cpu_relax();
    }
}

Result<void> NetSubject::run(Traffic::Mode mode, const std::function<Result<void>()>& work) {
    traffic().set_mode(mode);
    start_device();
    auto ok = work();
    if (ok) ok = drain();
    traffic().set_mode(Traffic::Mode::kStill);
    stop_device();
    return ok;
}

Result<double> NetSubject::rate(double window_ns) {
    double rate = 0;
    const auto moved = [&] { return traffic().taken() + received_; };
    // Not less than a burst, however long it takes.
    const auto go_on = [&](double ns, uint64_t packets) -> Result<void> {
        const uint64_t start = Clock::ticks(), before = moved();
        const uint64_t end = start + Clock::ticks_in(ns);
        const uint64_t limit = end + Clock::ticks_in(patience_ns_);
        for (;;) {
            if (auto ok = step(); !ok) return ok;
            const uint64_t now = Clock::ticks();
            if (now >= end && moved() - before >= packets) return {};
            if (now > limit) return fail("after {} packets nothing moves any more", moved());
        }
    };
    const auto ok = run(Traffic::Mode::kFree, [&]() -> Result<void> {
        if (auto warm = go_on(window_ns / 8, 0); !warm) return warm;
        const uint64_t start = Clock::ticks(), before = moved();
        if (auto ran = go_on(window_ns, kPacketBurst); !ran) return ran;
        rate = double(moved() - before) * 1e3 / Clock::ns(Clock::ticks() - start);
        return {};
    });
    if (!ok) return tl::unexpected(ok.error());
    return rate;
}

Result<double> NetSubject::device_time(double window_ns) {
    std::vector<double> each;
    each.reserve(1 << 14);
    const auto ok = run(Traffic::Mode::kTurns, [&]() -> Result<void> {
        for (int i = 0; i < 4; ++i)
            if (auto warm = turn(); !warm) return warm;
        const uint64_t end = Clock::ticks() + Clock::ticks_in(window_ns);
        do {
            const uint64_t ticks = traffic().turn_ticks(), before = traffic().moved();
            if (auto done = turn(); !done) return done;
            if (const uint64_t moved = traffic().moved() - before; moved != 0)
                each.push_back(Clock::ns(traffic().turn_ticks() - ticks) / double(moved));
        } while (Clock::ticks() < end);
        return each.empty() ? fail("the device moved no packet in its turns") : Result<void>{};
    });
    if (!ok) return tl::unexpected(ok.error());
    return summarize(std::move(each)).median;
}

Result<void> NetSubject::verify(uint64_t packets) {
    thorough_ = true;
    traffic().set_thorough(true);
    const uint64_t from = sent_ + packets, to = received_ + packets;
    const uint64_t end = Clock::ticks() + Clock::ticks_in(patience_ns_);
    auto ok = run(Traffic::Mode::kFree, [&]() -> Result<void> {
        while ((case_.from_guest() && sent_ < from) || (case_.to_guest() && received_ < to)) {
            if (auto done = step(); !done) return done;
            if (Clock::ticks() > end)
                return fail("after {} and {} packets nothing moves any more", sent_, received_);
        }
        return {};
    });
    thorough_ = false;
    traffic().set_thorough(false);
    return ok;
}

}  // namespace viommu::perf
