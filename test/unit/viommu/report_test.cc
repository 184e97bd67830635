// SPDX-License-Identifier: BSD-3-Clause
#include "report.hh"

#include <sstream>

#include "problems.hh"

namespace viommu::app {
namespace {

TEST(Describe, everything_configured_is_said) {
    const auto config = parse(guest_with("") + net_with("peer = \"vdev:net_tap0\"\nmtu = 1500\n"
                                                        "mac = \"52:54:00:12:34:56\"\nlcore = 2"));
    ASSERT_TRUE(config.has_value()) << joined(config.error());
    const uint64_t features[] = {0x15};
    const std::string text = describe(*config, features);
    const std::string expected =
        "  poll              adaptive\n"
        "  lcores            1 2\n"
        "\n"
        "guest vm0\n"
        "  socket            /run/vm0.sock\n"
        "  lcore             1\n"
        "  features          INPUT_RANGE MAP_UNMAP PROBE\n"
        "  page sizes        4K and every larger power of two\n"
        "  input range       [0x1000000, 0x3fffffff]\n"
        "  domain range      [0, 65535]\n"
        "  bypass            on\n"
        "  reserved          [0xfee00000, 0xfeefffff] msi\n"
        "  quotas            1024 domains, 1048576 mappings, arena 64M\n"
        "  endpoints         0000:00:05.0 0000:00:04.0\n"
        "  net net0          /run/vm0-net0.sock\n"
        "    endpoint        0000:00:04.0\n"
        "    mac             52:54:00:12:34:56\n"
        "    mtu             1500\n"
        "    rings           auto\n"
        "    queues          1 pair\n"
        "    offloads        on\n"
        "    lcore           2\n"
        "    peer            vdev net_tap0\n";
    EXPECT_EQ(text.substr(text.find('\n') + 1), expected);
    EXPECT_TRUE(text.starts_with("dpdk-viommu "));
}

TEST(Describe, queues_and_their_lcores_are_said) {
    const auto config =
        parse(guest_with("") + net_with("queue_pairs = 3\ncontrol_queue = true\nspeed = 25000\n"
                                        "offloads = false\nlcore = [4, 2]"));
    ASSERT_TRUE(config.has_value()) << joined(config.error());
    const std::string text = describe(*config, {});
    for (const char* line :
         {"  lcores            1 2 4\n", "    queues          3 pairs and the control queue\n",
          "    offloads        off\n", "    speed           25000 Mb/s\n",
          "    lcores          4 2\n"})
        EXPECT_NE(text.find(line), std::string::npos) << line << text;
}

TEST(Describe, readers_socket_is_said_with_what_becomes_of_those_that_stall) {
    const auto said = [](const std::string& more) {
        const auto config = parse(guest_with("readers = \"/run/r.sock\"\n" + more));
        return config ? describe(*config, {}) : joined(config.error());
    };
    const std::string killed = said("");
    EXPECT_NE(killed.find("  readers           /run/r.sock; killed after 1000 ms"), killed.npos)
        << killed;
    const std::string offline = said("stalled_readers = \"disconnect\"");
    EXPECT_NE(offline.find("taken offline after 1000 ms"), offline.npos) << offline;
}

TEST(Counters, every_line_is_a_heading_or_a_name_and_a_number) {
    device::Device::Stats stats;
    stats.attach.add(2);
    stats.status[size_t(Status::kNoMem)].add(3);
    stats.exhausted[size_t(table::Quota::kMappings)].add(3);
    Counters out;
    add_device(out, "vm0", stats, 4,
               {.endpoints = 5,
                .domains = 6,
                .mappings = 7,
                .nodes_used = 8,
                .nodes_free = 9,
                .trees_waiting = 10});
    add_poller(out, 1, {.idle_rounds = 11, .busy_rounds = 12, .sleeps = 13});
    std::istringstream lines(out.text());
    std::string line;
    unsigned counters = 0;
    while (std::getline(lines, line)) {
        if (line.starts_with("# ")) continue;
        std::istringstream words(line);
        std::string name, rest;
        uint64_t value;
        EXPECT_TRUE(words >> name >> value) << line;
        EXPECT_FALSE(words >> rest) << line;
        EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._"), name.npos);
        counters++;
    }
    EXPECT_GT(counters, 20u);
    for (const char* expected :
         {"guest.vm0.requests.attach 2\n", "guest.vm0.requests.map 0\n",
          "guest.vm0.status.nomem 3\n", "guest.vm0.quota.mappings 3\n",
          "guest.vm0.quota.domains 0\n", "guest.vm0.quota.arena 0\n", "guest.vm0.status.ok 0\n",
          "guest.vm0.faults.lost 4\n", "guest.vm0.table.endpoints 5\n",
          "guest.vm0.table.domains 6\n", "guest.vm0.table.mappings 7\n",
          "guest.vm0.table.nodes_used 8\n", "lcore.1.idle_rounds 11\n", "lcore.1.busy_rounds 12\n",
          "lcore.1.sleeps 13\n"})
        EXPECT_NE(out.text().find(expected), std::string::npos) << expected << out.text();
}

TEST(Describe, regions_of_one_endpoint_and_legacy_bypass_are_said) {
    const auto config = parse(
        guest_with("legacy_bypass = true") +
        net_with("reserved = [ { first = 0x2000000, last = 0x2000fff } ]"));
    ASSERT_TRUE(config.has_value()) << joined(config.error());
    const std::string text = describe(*config, {});
    for (const char* line :
         {"  bypass            when the driver accepts it\n",
          "  reserved          [0x2000000, 0x2000fff] reserved for 0000:00:04.0\n"})
        EXPECT_NE(text.find(line), std::string::npos) << line << text;
}

}  // namespace
}  // namespace viommu::app
