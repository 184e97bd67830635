// SPDX-License-Identifier: BSD-3-Clause
#include "config.hh"

#include "problems.hh"

namespace viommu::app {
namespace {

constexpr const char* kFull = R"(
poll = "busy"
eal  = ["--no-huge", "-m", "256", "--no-pci", "--lcores", "0@0,1@0,2@1"]

[[guest]]
name         = "vm0"
socket       = "/run/dpdk-viommu/vm0/iommu.sock"
lcore        = 1
page_sizes   = ["4K", "2M", "1G"]
input_range  = { first = 0x1000000, last = 0x3fffffff }
domain_range = { first = 1, last = 4095 }
bypass       = false
msi          = true
reserved     = [ { first = 0x2000000, last = 0x2ffffff, type = "reserved" } ]
max_domains  = 16
max_mappings = 5000
arena        = "16M"
hugepages    = "never"
faults_per_second = 7

  [[guest.endpoint]]
  id = "0000:00:05.0"

  [[guest.net]]
  name     = "net0"
  socket   = "/run/dpdk-viommu/vm0/net0.sock"
  endpoint = "0000:00:04.0"
  mac      = "52:54:00:12:34:56"
  mtu      = 1500
  ring_addresses = "uva"
  peer     = "vdev:net_tap0,iface=vtap0"
  lcore    = 2
)";

TEST(Config, full_example_sets_every_field) {
    const auto parsed = parse(kFull);
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(parsed->poll, poll::Policy::kBusy);
    ASSERT_TRUE(parsed->eal.has_value());
    EXPECT_EQ(parsed->eal->size(), 6u);
    ASSERT_EQ(parsed->guests.size(), 1u);

    const Guest& guest = parsed->guests[0];
    EXPECT_EQ(guest.name, "vm0");
    EXPECT_EQ(guest.socket, "/run/dpdk-viommu/vm0/iommu.sock");
    EXPECT_EQ(guest.lcore.id, 1u);
    EXPECT_EQ(guest.device.page_size_mask, 0x40201000u);
    EXPECT_EQ(guest.device.input_range, (IovaRange{{0x1000000}, {0x3fffffff}}));
    EXPECT_EQ(guest.device.domain_first, 1u);
    EXPECT_EQ(guest.device.domain_last, 4095u);
    EXPECT_FALSE(guest.device.bypass);
    ASSERT_EQ(guest.device.reserved.size(), 2u);
    EXPECT_EQ(guest.device.reserved[0].range, (IovaRange{{0xfee00000}, {0xfeefffff}}));
    EXPECT_EQ(guest.device.reserved[0].type, device::ReservedRegion::Type::kMsi);
    EXPECT_EQ(guest.device.reserved[1].range, (IovaRange{{0x2000000}, {0x2ffffff}}));
    EXPECT_EQ(guest.device.reserved[1].type, device::ReservedRegion::Type::kReserved);
    EXPECT_EQ(guest.device.max_domains, 16u);
    EXPECT_EQ(guest.device.max_mappings, 5000u);
    EXPECT_EQ(guest.device.arena_bytes, 16u << 20);
    EXPECT_EQ(guest.device.hugepages, table::Hugepages::kNever);
    EXPECT_EQ(guest.device.faults_per_second, 7u);
    EXPECT_EQ(guest.device.endpoints, (std::vector<EndpointId>{0x28, 0x20}));

    ASSERT_EQ(guest.nets.size(), 1u);
    const Net& net = guest.nets[0];
    EXPECT_EQ(net.name, "net0");
    EXPECT_EQ(net.socket, "/run/dpdk-viommu/vm0/net0.sock");
    EXPECT_EQ(net.endpoint, 0x20u);
    EXPECT_EQ(net.mac, (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
    EXPECT_EQ(net.mtu, 1500);
    EXPECT_EQ(net.ring_addresses, net::RingAddresses::kUva);
    EXPECT_EQ(net.peer.kind, Peer::Kind::kVdev);
    EXPECT_EQ(net.peer.target, "net_tap0,iface=vtap0");
    EXPECT_EQ(net.lcore_of(0), 2u);
    EXPECT_EQ(lcores_of(*parsed), (std::vector<unsigned>{1, 2}));
}

TEST(Config, shortest_example_gets_the_documented_defaults) {
    const auto parsed = parse(
        "[[guest]]\nname = \"a\"\nsocket = \"/a\"\n"
        "[[guest.net]]\nname = \"n\"\nsocket = \"/n\"\nendpoint = \"00:04.0\"\n");
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(parsed->poll, poll::Policy::kAdaptive);
    EXPECT_FALSE(parsed->eal.has_value());
    const Guest& guest = parsed->guests[0];
    const device::Config device;
    EXPECT_EQ(guest.lcore.id, 1u);
    EXPECT_EQ(guest.device.page_size_mask, device.page_size_mask);
    EXPECT_EQ(guest.device.input_range, device.input_range);
    EXPECT_TRUE(guest.device.bypass);
    ASSERT_EQ(guest.device.reserved.size(), 1u);
    const Net& net = guest.nets[0];
    EXPECT_EQ(net.lcore_of(0), 1u);
    EXPECT_EQ(net.queue_pairs, 1);
    EXPECT_FALSE(net.control_queue);
    EXPECT_TRUE(net.offloads);
    EXPECT_FALSE(net.speed_mbps.has_value());
    EXPECT_EQ(net.peer.kind, Peer::Kind::kNone);
    EXPECT_FALSE(net.mtu.has_value());
    EXPECT_EQ(net.ring_addresses, net::RingAddresses::kAuto);
    EXPECT_EQ(net.mac[0] & 3, 2) << "not a locally administered unicast address";
}

TEST(Config, msi_false_reserves_nothing) {
    const auto parsed = parse(guest_with("msi = false"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_TRUE(parsed->guests[0].device.reserved.empty());
}

TEST(Config, address_above_int64_in_quotes_is_taken) {
    const auto parsed = parse(
        "[[guest]]\nname = \"a\"\nsocket = \"/a\"\nendpoint = [ { id = \"00:04.0\" } ]\n"
        "input_range = { first = 0, last = \"0xffffffffffffffff\" }\n");
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(parsed->guests[0].device.input_range.last.value, ~uint64_t{0});
}

TEST(Config, all_problems_are_reported_in_the_order_of_lines) {
    const auto parsed = parse(guest_with("mac = 1\nbypass = \"yes\"") +
                              net_with("mtu = 20\nlcore = -1") + "[[guest]]\nname = \"vm0\"\n");
    ASSERT_FALSE(parsed.has_value());
    ASSERT_EQ(parsed.error().size(), 7u) << joined(parsed.error());
    EXPECT_TRUE(parsed.error()[0].starts_with("vm.toml:7: guest.vm0.mac = 1: "));
    EXPECT_TRUE(parsed.error()[1].starts_with("vm.toml:8: guest.vm0.bypass = "));
    EXPECT_TRUE(parsed.error()[2].starts_with("vm.toml:13: guest.vm0.net.net0.mtu = 20: "));
    EXPECT_TRUE(parsed.error()[3].starts_with("vm.toml:14: guest.vm0.net.net0.lcore = -1: "));
    EXPECT_TRUE(parsed.error()[4].starts_with("vm.toml:15: guest.vm0.socket: is required"));
    EXPECT_TRUE(parsed.error()[5].starts_with("vm.toml:15: guest.vm0: has no endpoint"));
    EXPECT_TRUE(parsed.error()[6].starts_with("vm.toml:16: guest.vm0.name = \"vm0\": is taken"));
}

TEST(Config, not_toml_is_refused_with_line) {
    expect_problem("poll = \n", {"vm.toml:1: is not TOML", "https://toml.io"});
}

TEST(Config, too_big_integer_is_told_to_be_quoted) {
    expect_problem("a = 0xffffffffffffffff\n", {"vm.toml:1:", "in quotes"});
}

TEST(Config, missing_file_is_refused_with_reason) {
    const auto loaded = load_config("/nonexistent/vm.toml");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_NE(loaded.error()[0].find("/nonexistent/vm.toml: cannot be read: No such file"),
              std::string::npos)
        << loaded.error()[0];
    EXPECT_NE(loaded.error()[0].find("--config"), std::string::npos);
}

TEST(Config, directory_as_file_is_refused) {
    const auto loaded = load_config("/tmp");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_NE(loaded.error()[0].find("/tmp: cannot be read"), std::string::npos);
}

TEST(Config, empty_file_has_no_guest) {
    const auto loaded = load_config("/dev/null");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_NE(loaded.error()[0].find("there is no guest"), std::string::npos);
}

TEST(Config, no_guest_is_refused) { expect_problem("poll = \"busy\"\n", {"[[guest]]"}); }

TEST(Config, unknown_key_near_a_known_one_is_corrected) {
    expect_problem(guest_with("page_size = [\"4K\"]"),
                   {"vm.toml:7: guest.vm0.page_size", "4K", "did you mean 'page_sizes'?"});
    expect_problem("pol = 1\n" + guest_with(""), {"vm.toml:1: pol = 1", "did you mean 'poll'?"});
    expect_problem(guest_with(net_with("adress = 1")), {"vm.toml:11:", "known keys here: name,"});
}

TEST(Config, unknown_key_that_needs_quotes_is_shown_in_quotes) {
    expect_problem("\"\" = 1\n" + guest_with(""), {"vm.toml:1: '' = 1", "no such key"});
    expect_problem("\"a b\" = 1\n" + guest_with(""), {"vm.toml:1: 'a b' = 1", "no such key"});
    // Nor is an empty one taken for the table that it is in.
    const auto config = parse("\"\" = 1\n");
    ASSERT_FALSE(config.has_value());
    EXPECT_NE(joined(config.error()).find("vm.toml:1: there is no guest"), std::string::npos);
}

TEST(Config, wrong_poll_policy_is_refused) {
    expect_problem("poll = \"sometimes\"\n" + guest_with(""),
                   {"vm.toml:1: poll = ", "sometimes", "\"adaptive\" or poll = \"busy\""});
}

TEST(Config, wrong_types_are_refused_with_the_right_one) {
    expect_problem(guest_with("bypass = 1"), {"vm.toml:7:", "guest.vm0.bypass = 1", "an integer",
                                              "bypass = true or bypass = false"});
    expect_problem(guest_with("page_sizes = 4096"), {"vm.toml:7:", "array of strings", "[\"4K\""});
    expect_problem(guest_with("max_domains = \"many\""), {"vm.toml:7:", "many", "not a number"});
    expect_problem(guest_with("max_domains = 1.5"), {"vm.toml:7:", "1.5", "floating-point"});
    expect_problem(guest_with("arena = \"64X\""), {"vm.toml:7:", "64X", "K, M, G or T"});
    expect_problem(guest_with("domain_range = 3"), {"vm.toml:7:", "domain_range = 3", "a table"});
    expect_problem(guest_with("reserved = 3"), {"vm.toml:7:", "array of tables"});
    expect_problem("eal = \"--no-huge\"\n" + guest_with(""),
                   {"vm.toml:1: eal", "array of strings"});
    expect_problem("[[guest]]\nname = 3\nsocket = \"/a\"\nendpoint = [ { id = \"00:4.0\" } ]\n",
                   {"vm.toml:2:", "name = 3", "write a string", "\"vm0\""});
}

TEST(Config, name_that_cannot_be_a_counter_is_refused) {
    expect_problem(guest_with(net_with("", "net.0")),
                   {"vm.toml:8:", "net.0", "letters, digits", "\"net0\""});
    expect_problem(guest_with(net_with("", "")), {"vm.toml:8:", "is empty", "\"net0\""});
}

TEST(Config, socket_path_limits_are_told) {
    const std::string path = "/run/" + std::string(103, 'x');
    expect_problem(
        "[[guest]]\nname = \"a\"\nsocket = \"" + path + "\"\nendpoint = [ { id = \"00:4.0\" } ]\n",
        {"vm.toml:3:", "108 bytes", "107", "shorter"});
    expect_problem(
        "[[guest]]\nname = \"a\"\nsocket = \"a.sock\"\n"
        "endpoint = [ { id = \"00:4.0\" } ]\n",
        {"vm.toml:3:", "a.sock", "not an absolute path"});
}

TEST(Config, page_size_that_is_none_is_refused) {
    expect_problem(
        guest_with("page_sizes = [\"4K\", \"5K\"]"),
        {"vm.toml:7:", "page_sizes", "'5K'", "power of two", "[\"4K\", \"2M\", \"1G\"]"});
    expect_problem(guest_with("page_sizes = [\"2K\"]"), {"'2K'", "4K or more"});
    expect_problem(guest_with("page_sizes = []"), {"names no size"});
    expect_problem(guest_with("page_sizes = [\"4G\", \"2G\"]"), {"vm.toml:7:", "2G", "above 1G"});
}

std::string with_input_range(const char* range) {
    return std::string(
               "[[guest]]\nname = \"a\"\nsocket = \"/a\"\nendpoint = [{id = \"00:4.0\"}]\n") +
           "input_range = " + range + "\n";
}

TEST(Config, reversed_ranges_are_refused) {
    expect_problem(with_input_range("{ first = 0x2000, last = 0xfff }"),
                   {"vm.toml:5:", "a.input_range", "0x2000", "0xfff", "reversed", "swap"});
    expect_problem(guest_with("domain_range = { first = 5, last = 4 }"),
                   {"vm.toml:7:", "domain_range", "reversed", "first 5", "last 4"});
}

TEST(Config, misaligned_input_range_is_refused_with_the_nearest_right_one) {
    expect_problem(with_input_range("{ first = 0x1001, last = 0x2fff }"),
                   {"vm.toml:5:", "aligned", "4K", "first = 0x1000, last = 0x2fff"});
    expect_problem(with_input_range("{ first = 0x1000, last = 0x3000 }"),
                   {"vm.toml:5:", "aligned", "first = 0x1000, last = 0x3fff"});
    expect_problem(
        "[[guest]]\nname = \"a\"\nsocket = \"/a\"\nendpoint = [{id = \"00:4.0\"}]\n"
        "page_sizes = [\"2M\"]\ninput_range = { first = 0x1000, last = 0x1fffff }\n",
        {"vm.toml:6:", "2M", "first = 0x0, last = 0x1fffff"});
}

TEST(Config, half_a_range_is_refused) {
    expect_problem(with_input_range("{ first = 0x1000 }"),
                   {"vm.toml:5:", "input_range.last", "required", "last = 0x3fffffff"});
}

TEST(Config, number_out_of_bounds_is_refused_with_the_bounds) {
    expect_problem(guest_with("domain_range = { first = 0, last = 4294967296 }"),
                   {"vm.toml:7:", "4294967296", "0 to 4294967295"});
    expect_problem(guest_with("max_domains = 0"), {"max_domains = 0", "1 to 1048576"});
    expect_problem(guest_with("arena = \"4K\""), {"arena", "4K", "less than 1M"});
    expect_problem(guest_with("hugepages = \"yes\""), {"hugepages", "yes", "always"});
    expect_problem(guest_with(net_with("mtu = 67")), {"vm.toml:11:", "mtu = 67", "68 to 9216"});
    expect_problem(guest_with(net_with("lcore = 128")), {"vm.toml:11:", "lcore = 128", "0 to 127"});
}

TEST(Config, reserved_regions_that_overlap_are_refused) {
    expect_problem(
        guest_with("reserved = [ { first = 0x2000000, last = 0x2ffffff },\n"
                   "             { first = 0x2fff000, last = 0x3ffffff } ]"),
        {"vm.toml:7:", "[0x2fff000, 0x3ffffff]", "overlaps", "[0x2000000, 0x2ffffff]", "disjoint"});
}

TEST(Config, reserved_region_over_the_default_msi_is_refused_with_the_remedy) {
    expect_problem(
        "[[guest]]\nname = \"a\"\nsocket = \"/a\"\nendpoint = [{id = \"00:4.0\"}]\n"
        "reserved = [ { first = 0xfee00000, last = 0xfee00fff } ]\n",
        {"vm.toml:5:", "the MSI region that 'msi' adds", "msi = false"});
}

TEST(Config, second_msi_region_is_refused_with_the_remedy) {
    expect_problem(guest_with("reserved = [ { first = 0x8020000, last = 0x802ffff, "
                              "type = \"msi\" } ]"),
                   {"vm.toml:7:", "second region of type msi", "msi = false"});
    EXPECT_TRUE(
        parse(guest_with("msi = false\nreserved = [ { first = 0x8020000, last = 0x802ffff, "
                         "type = \"msi\" } ]")));
}

TEST(Config, reserved_region_without_effect_is_refused) {
    expect_problem(guest_with("reserved = [ { first = 0x40000000, last = 0x4fffffff } ]"),
                   {"vm.toml:7:", "outside input_range", "leave it out"});
    expect_problem(guest_with("reserved = [ { first = 0, last = 0x4fffffff } ]"),
                   {"vm.toml:7:", "covers all of input_range", "smaller"});
}

TEST(Config, reserved_regions_of_an_endpoint_are_its_own) {
    const auto parsed = parse(
        "[[guest]]\nname = \"a\"\nsocket = \"/a\"\n"
        "endpoint = [ { id = \"00:05.0\", reserved = [ { first = 0x2000000, last = 0x2000fff } ] } "
        "]\n" +
        net_with("reserved = [ { first = 0x2000000, last = 0x2001fff },\n"
                 "             { first = 0x3000000, last = 0x3000fff } ]"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const device::Config& device = parsed->guests[0].device;
    EXPECT_EQ(device.reserved.size(), 1u) << "the MSI doorbell";
    ASSERT_EQ(device.endpoint_reserved.size(), 2u);
    ASSERT_EQ(device.endpoint_reserved.at(0x28).size(), 1u);
    EXPECT_EQ(device.endpoint_reserved.at(0x28)[0].range, (IovaRange{{0x2000000}, {0x2000fff}}));
    ASSERT_EQ(device.endpoint_reserved.at(0x20).size(), 2u);
    EXPECT_TRUE(device::Device::create(device).has_value());
}

TEST(Config, reserved_region_of_an_endpoint_that_meets_a_common_one_is_refused) {
    expect_problem(guest_with("reserved = [ { first = 0x2000000, last = 0x2000fff } ]") +
                       net_with("reserved = [ { first = 0x2000000, last = 0x2001fff } ]"),
                   {"vm.toml:12: guest.vm0.net.net0.reserved", "overlaps [0x2000000, 0x2000fff]"});
    expect_problem(guest_with("") + net_with("reserved = [ { first = 0x8000000, last = 0x8000fff, "
                                             "type = \"msi\" } ]"),
                   {"second region of type msi", "msi = false"});
}

TEST(Config, legacy_bypass_and_bypass_are_refused_together) {
    const auto parsed = parse(guest_with("legacy_bypass = true"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_TRUE(parsed->guests[0].device.legacy_bypass);
    expect_problem(guest_with("legacy_bypass = true\nbypass = true"),
                   {"vm.toml:8: guest.vm0.bypass", "leave one of the two out"});
}

TEST(Config, dirty_log_is_off_unless_asked_for) {
    EXPECT_FALSE(parse(guest_with(""))->guests[0].dirty_log);
    EXPECT_TRUE(parse(guest_with("dirty_log = true"))->guests[0].dirty_log);
}

TEST(Config, readers_get_no_socket_unless_asked_for) {
    EXPECT_FALSE(parse(guest_with(""))->guests[0].readers);
    const auto parsed = parse(guest_with("readers = \"/run/r.sock\""));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const auto& readers = parsed->guests[0].readers;
    ASSERT_TRUE(readers);
    EXPECT_EQ(readers->socket, "/run/r.sock");
    EXPECT_EQ(readers->stall, std::chrono::milliseconds(1000));
    EXPECT_EQ(readers->stalled, share::StalledReaders::kKill);
}

TEST(Config, what_becomes_of_stalled_readers_can_be_said) {
    const auto parsed = parse(guest_with(
        "readers = \"/run/r.sock\"\nreader_stall_ms = 50\nstalled_readers = \"disconnect\""));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(parsed->guests[0].readers->stall, std::chrono::milliseconds(50));
    EXPECT_EQ(parsed->guests[0].readers->stalled, share::StalledReaders::kDisconnect);
    const std::string readers = "readers = \"/run/r.sock\"\n";
    expect_problem(guest_with(readers + "stalled_readers = \"forgive\""),
                   {"vm.toml:8: guest.vm0.stalled_readers", "\"kill\" or \"disconnect\""});
    expect_problem(guest_with(readers + "reader_stall_ms = 0"), {"vm.toml:8:", "1 to 3600000"});
}

TEST(Config, wrong_socket_for_readers_is_refused) {
    expect_problem(guest_with("readers = \"r.sock\""),
                   {"vm.toml:7: guest.vm0.readers", "not an absolute path", "readers.sock"});
    expect_problem(guest_with("readers = \"\""), {"vm.toml:7:", "not an absolute path"});
    expect_problem(guest_with("readers = \"/" + std::string(107, 'x') + "\""),
                   {"vm.toml:7:", "108 bytes long"});
    expect_problem(guest_with("readers = \"/run/vm0.sock\""), {"vm.toml:7:", "is taken as socket"});
    expect_problem(guest_with("reader_stall_ms = 5"),
                   {"vm.toml:7: guest.vm0.reader_stall_ms", "has no effect", "readers = "});
}

TEST(Config, reserved_region_of_unknown_type_is_refused) {
    expect_problem(
        guest_with("reserved = [ { first = 0x2000000, last = 0x2ffffff, type = \"x\" } ]"),
        {"vm.toml:7:", "type = ", "\"reserved\" or type = \"msi\""});
}

TEST(Config, wrong_endpoint_is_refused_with_the_form) {
    expect_problem(
        guest_with(net_with("", "net0", "0000:00:44.0")),
        {"vm.toml:10:", "endpoint", "0000:00:44.0", "the device is not 00 to 1f", "0000:00:04.0"});
}

TEST(Config, guest_without_endpoint_is_refused) {
    expect_problem("[[guest]]\nname = \"a\"\nsocket = \"/a\"\n",
                   {"vm.toml:1: guest.a: has no endpoint", "[[guest.net]]"});
}

TEST(Config, wrong_mac_is_refused) {
    expect_problem(guest_with(net_with("mac = \"52:54:00:12:34\"")),
                   {"vm.toml:11:", "52:54:00:12:34", "not a MAC address", "52:54:00:12:34:56"});
    expect_problem(guest_with(net_with("mac = \"01:00:5e:00:00:01\"")), {"not a unicast address"});
    expect_problem(guest_with(net_with("mac = \"00:00:00:00:00:00\"")), {"not a unicast address"});
}

TEST(Config, queues_and_what_the_nic_can_do_are_taken) {
    const auto parsed = parse(guest_with(net_with(
        "queue_pairs = 8\ncontrol_queue = true\noffloads = false\nspeed = 100000")));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const Net& net = parsed->guests[0].nets[0];
    EXPECT_EQ(net.queue_pairs, 8);
    EXPECT_TRUE(net.control_queue);
    EXPECT_FALSE(net.offloads);
    EXPECT_EQ(net.speed_mbps, 100000u);
}

TEST(Config, pairs_are_dealt_out_to_the_lcores_in_turn) {
    const auto parsed = parse(guest_with(net_with("queue_pairs = 5\nlcore = [3, 7]")));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const Net& net = parsed->guests[0].nets[0];
    EXPECT_TRUE(net.lcores_given);
    std::vector<unsigned> of_pairs;
    for (uint16_t pair = 0; pair < 5; pair++) of_pairs.push_back(net.lcore_of(pair));
    EXPECT_EQ(of_pairs, (std::vector<unsigned>{3, 7, 3, 7, 3}));
    EXPECT_EQ(lcores_of(*parsed), (std::vector<unsigned>{1, 3, 7}));
}

TEST(Config, number_of_queue_pairs_out_of_bounds_is_refused) {
    for (const char* wrong : {"queue_pairs = 0", "queue_pairs = 65"})
        expect_problem(guest_with(net_with(wrong)),
                       {"vm.toml:11: guest.vm0.net.net0.queue_pairs", wrong, "1 to 64"});
    expect_problem(guest_with(net_with("control_queue = 1")),
                   {"vm.toml:11:", "control_queue = true or control_queue = false"});
    expect_problem(guest_with(net_with("speed = 0")), {"vm.toml:11:", "1 to 2147483647"});
    expect_problem(guest_with(net_with("offloads = \"all\"")), {"vm.toml:11:", "offloads = true"});
}

TEST(Config, more_lcores_than_pairs_are_refused_with_both_remedies) {
    expect_problem(guest_with(net_with("queue_pairs = 2\nlcore = [1, 2, 3]")),
                   {"vm.toml:12: guest.vm0.net.net0.lcore = [ 1, 2, 3 ]", "3 lcores for 2 pairs",
                    "lcore = [1, 2], or queue_pairs = 3"});
    expect_problem(guest_with(net_with("lcore = [1, 2]")), {"2 lcores for 1 pair of"});
}

TEST(Config, wrong_lists_of_lcores_are_refused_with_the_form) {
    expect_problem(guest_with(net_with("queue_pairs = 2\nlcore = [2, 2]")),
                   {"vm.toml:12:", "lcore 2 twice", "once"});
    expect_problem(guest_with(net_with("lcore = []")), {"vm.toml:11:", "is empty", "lcore = 1"});
    expect_problem(guest_with(net_with("queue_pairs = 2\nlcore = [1, 128]")),
                   {"vm.toml:12:", "no number from 0 to 127", "lcore = [1, 2]"});
    expect_problem(guest_with(net_with("queue_pairs = 2\nlcore = [1, true]")), {"vm.toml:12:"});
}

TEST(Config, wrong_ring_addresses_are_refused) {
    expect_problem(guest_with(net_with("ring_addresses = \"gpa\"")),
                   {"vm.toml:11:", "gpa", "\"auto\", \"iova\" or \"uva\""});
}

TEST(Config, wrong_peer_is_refused_with_the_forms) {
    expect_problem(guest_with(net_with("peer = \"net_tap0\"")),
                   {"vm.toml:11:", "net_tap0", "\"vdev:", "\"ethdev:", "\"guest:"});
    expect_problem(guest_with(net_with("peer = \"vdev:\"")), {"names nothing after 'vdev:'"});
}

}  // namespace
}  // namespace viommu::app
