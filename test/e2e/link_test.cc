// SPDX-License-Identifier: BSD-3-Clause
/// What the guest is told of its NIC: address, MTU, and the link of the device behind it.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "daemon.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

struct Link : testing::Test {
    void SetUp() override {
        const Fd tun(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
        if (geteuid() != 0 || tun.get() < 0) GTEST_SKIP() << "making a tap takes root";
        auto started = Daemon::start(fmt::format(R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/net0.sock"
  endpoint = "0000:00:04.0"
  mac = "52:54:00:12:34:56"
  mtu = 1400
  peer = "vdev:net_tap0,iface={}"
)",
                                                 interface));
        ASSERT_TRUE(started) << started.error().message;
        daemon.emplace(std::move(*started));
        GuestOptions o;
        o.iommu_socket = daemon->path("iommu.sock");
        o.ports = {{daemon->path("net0.sock"), kEndpoint0}};
        auto made = Guest::create(o);
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
    }
    void TearDown() override {
        if (!daemon) return;
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }
    void set(const char* state) const {
        const auto command = fmt::format("ip link set dev {} {}", interface, state);
        ASSERT_EQ(std::system(command.c_str()), 0);
    }
    bool link_up() const {
        return (guest->port(0).config().status & wire::VIRTIO_NET_S_LINK_UP) != 0;
    }
    /// The device says that its configuration has changed, and then it has.
    void wait_for_link(bool up) const {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (link_up() != up && std::chrono::steady_clock::now() < end) {
            const auto changed = guest->port(0).config_changed();
            ASSERT_TRUE(changed) << changed.error().message;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        EXPECT_EQ(link_up(), up);
    }

    const std::string interface = fmt::format("vml{}", getpid() % 100000);
    std::optional<Daemon> daemon;
    std::unique_ptr<Guest> guest;
};

TEST_F(Link, configuration_space_says_what_was_configured) {
    const auto& config = guest->port(0).config();
    EXPECT_EQ(guest->port(0).mac(), (std::array<uint8_t, 6>{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
    EXPECT_EQ(config.mtu, 1400);
}

TEST_F(Link, guest_is_told_when_the_device_loses_and_regains_its_link) {
    set("up");
    wait_for_link(true);
    for (int i = 0; i < 2; ++i) {
        set("down");
        wait_for_link(false);
        set("up");
        wait_for_link(true);
    }
}

}  // namespace
}  // namespace viommu::e2e
