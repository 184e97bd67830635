// SPDX-License-Identifier: BSD-3-Clause
/// A user-space driver inside the Linux guest: takes the virtio-net device BDF through VFIO type 1,
/// lets it reach buffers that VFIO has mapped, and proves that it reaches them no longer once VFIO
/// has unmapped them.
///
/// usage: vfio-net BDF ADDRESS PEER [forever]     e.g. 0000:00:04.0 10.77.1.2 10.77.1.1
///
/// With `forever` it only exchanges packets with the peer, until somebody kills it.
///
/// The peer is the host's network stack on the daemon's tap: it answers ARP, and ICMP echo with the
/// bytes that it was sent. What happens is said in lines `@viommu vfio ...`; exit status 0 if all
/// of it was right.
#include <algorithm>
#include <functional>
#include <random>
#include <thread>

#include "packet.hh"
#include "vfio.hh"
#include "virtio_pci.hh"

namespace guest {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr uint16_t kReceive = 0, kTransmit = 1;
constexpr unsigned kNetFMac = 5;
// IOVAs inside the guest's RAM, which QEMU's virtio-net-pci asks of rings; see doc/qemu.md.
constexpr uint64_t kRingsIova = 0x10000000, kSendIova = 0x20000000, kReceiveIova = 0x30000000;
constexpr uint32_t kBufferBytes = 2048;
constexpr uint32_t kHeaderBytes = 12;  // of virtio_net_hdr, with VIRTIO_F_VERSION_1
constexpr auto kPatience = 5s;         // for what must happen
constexpr auto kSilence = 300ms;       // for what must not

class Nic {
  public:
    Nic(Container& container, const std::string& bdf, uint32_t ip, uint32_t peer_ip)
        : container_(container), device_(container, bdf) {
        container.map(rings_, kRingsIova);
        container.map(send_, kSendIova);
        container.map(receive_, kReceiveIova);
        device_.negotiate(uint64_t{1} << VIRTIO_F_VERSION_1 |
                          uint64_t{1} << VIRTIO_F_ACCESS_PLATFORM | uint64_t{1} << kNetFMac);
        for (size_t i = 0; i < sizeof(Mac); ++i)
            parties_.mac.byte[i] = device_.device_byte(uint32_t(i));
        parties_.ip = ip;
        parties_.peer_ip = peer_ip;
        device_.add_queue(rx_);
        device_.add_queue(tx_);
        device_.start();
        for (uint16_t i = 0; i < Ring::kSize; ++i) {
            rx_.describe(i, kReceiveIova + i * kBufferBytes, kBufferBytes, true);
            rx_.give(i);
        }
        device_.kick(rx_);
    }
    /// The device has let go of all memory before that goes away.
    ~Nic() { device_.reset(); }

    /// Put a frame into the send buffer and let the device have it.
    void post(const Bytes& frame) {
        require(kHeaderBytes + frame.size() <= kBufferBytes, "the frame is too long");
        std::memset(send_.data(), 0, kHeaderBytes);
        std::copy(frame.begin(), frame.end(), send_.data() + kHeaderBytes);
        tx_.describe(0, kSendIova, uint32_t(kHeaderBytes + frame.size()), false);
        tx_.give(0);
        device_.kick(tx_);
    }
    bool sent_within(Clock::duration limit) {
        return until(limit, [this] { return tx_.take().has_value(); });
    }
    void send(const Bytes& frame) {
        post(frame);
        require(sent_within(kPatience), "the device does not return what it sent");
    }

    /// Every frame that comes within `limit`, until `wants` takes one. Buffers go back to the
    /// device.
    bool receive(Clock::duration limit,
                 const std::function<bool(std::span<const uint8_t>)>& wants) {
        return until(limit, [&] {
            const auto used = rx_.take();
            if (!used) return false;
            require(used->bytes <= kBufferBytes, "more was received than there is room");
            bool taken = false;
            if (used->bytes < kHeaderBytes) {
                ++returned_empty_;
            } else {
                const uint8_t* buffer = receive_.data() + used->buffer * kBufferBytes;
                taken = wants(std::span(buffer, used->bytes).subspan(kHeaderBytes));
            }
            rx_.give(used->buffer);
            device_.kick(rx_);
            return taken;
        });
    }

    void resolve() {
        send(arp_request(parties_));
        require(receive(kPatience, [this](auto frame) { return take_arp_reply(frame, parties_); }),
                "nobody answers ARP");
    }

    /// Send new random bytes there and back, `times` over.
    void exchange(unsigned times) {
        for (unsigned i = 0; i < times; ++i) {
            const Bytes payload = new_payload();
            send(echo_request(parties_, ++sequence_, payload));
            Bytes back;
            require(answered(kPatience, back), "the host does not answer an echo");
            require(back == payload, "what came back is not what was sent");
        }
    }

    Bytes new_request() { return echo_request(parties_, ++sequence_, new_payload()); }
    bool answered(Clock::duration limit, Bytes& back) {
        return receive(
            limit, [&](auto frame) { return take_echo_reply(frame, parties_, sequence_, back); });
    }
    bool answered(Clock::duration limit) {
        Bytes back;
        return answered(limit, back);
    }

    Container& container() { return container_; }
    Memory& rings() { return rings_; }
    Memory& send_memory() { return send_; }
    Memory& receive_memory() { return receive_; }
    unsigned returned_empty() const { return returned_empty_; }

  private:
    static bool until(Clock::duration limit, const std::function<bool()>& done) {
        const auto end = Clock::now() + limit;
        while (!done()) {
            if (Clock::now() > end) return false;
            std::this_thread::sleep_for(50us);
        }
        return true;
    }

    Bytes new_payload() {
        Bytes out(32 + random_() % 1400);
        std::generate(out.begin(), out.end(), [this] { return uint8_t(random_()); });
        return out;
    }

    Container& container_;
    Memory rings_{2 * Ring::kPage}, send_{kBufferBytes * 2}, receive_{Ring::kSize * kBufferBytes};
    VirtioPci device_;
    Ring rx_{kReceive, rings_.data(), kRingsIova};
    Ring tx_{kTransmit, rings_.data() + Ring::kPage, kRingsIova + Ring::kPage};
    Parties parties_{};
    uint16_t sequence_ = 0;
    unsigned returned_empty_ = 0;
    std::mt19937 random_{std::random_device{}()};
};

/// A frame that would be answered is in memory that has been unmapped: it must not leave.
void prove_no_reading(Nic& nic) {
    nic.container().unmap(nic.send_memory(), kSendIova);
    nic.send(nic.new_request());
    require(!nic.answered(kSilence), "the device has read memory that VFIO had unmapped");
    say("send-buffer unmapped: the frame did not leave");

    // The same IOVA, other memory: what the device reads now is that.
    Memory other(nic.send_memory().size());
    other.fill(0);
    nic.container().map(other, kSendIova);
    nic.send(nic.new_request());
    require(!nic.answered(kSilence), "the device reads the memory that was at this IOVA before");
    nic.container().unmap(other, kSendIova);
    nic.container().map(nic.send_memory(), kSendIova);
    nic.exchange(16);
    say("send-buffer mapped again: 16 exchanges");
}

/// An answer is on its way to memory that has been unmapped: it must not arrive.
void prove_no_writing(Nic& nic) {
    constexpr uint8_t kCanary = 0xa5;
    nic.container().unmap(nic.receive_memory(), kReceiveIova);
    nic.receive_memory().fill(kCanary);
    nic.send(nic.new_request());
    require(!nic.answered(kSilence), "a frame arrived in memory that VFIO had unmapped");
    require(nic.receive_memory().is_filled_with(kCanary),
            "the device has written memory that VFIO had unmapped");
    require(nic.returned_empty() > 0, "the device returned no buffer that it could not write");
    say("receive-buffer unmapped: not a byte of it was written");
    nic.container().map(nic.receive_memory(), kReceiveIova);
    nic.exchange(16);
    say("receive-buffer mapped again: 16 exchanges");
}

/// The rings themselves: nothing moves without them, nothing is lost.
void prove_stall(Nic& nic) {
    nic.container().unmap(nic.rings(), kRingsIova);
    nic.post(nic.new_request());
    require(!nic.sent_within(kSilence), "the device uses a ring that VFIO had unmapped");
    say("rings unmapped: nothing moved");
    nic.container().map(nic.rings(), kRingsIova);
    require(nic.sent_within(kPatience), "the queue does not go on after its ring has come back");
    require(nic.answered(kPatience), "what waited for the ring to come back was lost");
    nic.exchange(16);
    say("rings mapped again: 17 exchanges");
}

void say_ranges(const Container& container) {
    const auto ranges = container.iova_ranges();
    require(!ranges.empty(), "VFIO says nothing about the IOVAs");
    for (const auto& range : ranges)
        say("iova-range %#llx %#llx", (unsigned long long)range.first,
            (unsigned long long)range.last);
}

int run(const std::string& bdf, const char* ip, const char* peer_ip, bool forever) {
    Container container(bdf);
    say_ranges(container);
    Nic nic(container, bdf, inet_addr(ip), inet_addr(peer_ip));
    nic.resolve();
    for (bool first = true; forever; first = false) {
        nic.exchange(10);
        if (first) say("exchanging");
    }
    nic.exchange(200);
    say("exchanged 200");
    prove_no_reading(nic);
    prove_no_writing(nic);
    prove_stall(nic);
    return 0;
}

}  // namespace
}  // namespace guest

int main(int argc, char** argv) {
    const bool forever = argc == 5 && std::strcmp(argv[4], "forever") == 0;
    if (argc != 4 && !forever) guest::die("usage: vfio-net BDF ADDRESS PEER [forever]");
    return guest::run(argv[1], argv[2], argv[3], forever);
}
