// SPDX-License-Identifier: BSD-3-Clause
#include "two_guests.hh"

namespace viommu::pmd {
namespace {

constexpr const char* kConfig = R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@/vm0.sock"
readers = "@/vm0-readers.sock"
reader_stall_ms = 20000
lcore = 1
bypass = false
  [[guest.endpoint]]
  id = "0000:00:04.0"
[[guest]]
name = "vm1"
socket = "@/vm1.sock"
readers = "@/vm1-readers.sock"
reader_stall_ms = 20000
lcore = 1
bypass = false
  [[guest.endpoint]]
  id = "0000:00:04.0"
)";

}  // namespace

TwoGuests::TwoGuests() {
    std::string name = (std::filesystem::temp_directory_path() / "viommu-pmd.XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
}

TwoGuests::~TwoGuests() {
    for (auto& guest : guests) guest.reset();
    daemon.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

void TwoGuests::start_daemon() {
    std::string config = kConfig;
    for (size_t at; (at = config.find('@')) != std::string::npos;)
        config.replace(at, 1, folder_.string());
    auto started = e2e::Daemon::start(config);
    VIOMMU_OK(started);
    daemon.emplace(std::move(*started));
}

void TwoGuests::start_guest(unsigned number, uint16_t pairs, uint64_t offloads) {
    guest::GuestOptions o;
    o.iommu_socket = path(fmt::format("vm{}.sock", number));
    o.ports.resize(1);
    o.ports[0].socket = path(fmt::format("net{}.sock", number));
    o.ports[0].endpoint = kEndpoint;
    o.ports[0].net.pairs = pairs;
    o.ports[0].net.features |= offloads;
    o.ports[0].net.required |= offloads;
    o.ports[0].net.tx_buffer_bytes = 16384;
    o.timeout = guest::Milliseconds(30000);
    auto made = guest::Guest::create(o);
    VIOMMU_OK(made);
    guests[number] = std::move(*made);
}

}  // namespace viommu::pmd
