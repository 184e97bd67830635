// SPDX-License-Identifier: BSD-3-Clause
#include "problems.hh"

namespace viommu::app {
namespace {

std::string two_nets(const std::string& first, const std::string& second) {
    return guest_with(net_with(first) + net_with(second, "net1", "0000:00:06.0"));
}

TEST(Names, guest_twice_is_refused_with_the_first_place) {
    expect_problem(
        guest_with("") +
            "[[guest]]\nname = \"vm0\"\nsocket = \"/b\"\nendpoint = [{id = \"0:4.0\"}]\n",
        {"vm.toml:9: guest.vm0.name = \"vm0\"", "guest name at vm.toml:2"});
}

TEST(Names, net_twice_in_a_guest_is_refused) {
    expect_problem(
        guest_with(net_with("") +
                   "[[guest.net]]\nname = \"net0\"\nsocket = \"/b\"\nendpoint = \"0:6.0\""),
        {"vm.toml:13:", "net0", "vm.toml:8"});
}

TEST(Names, same_net_name_in_two_guests_is_accepted) {
    const auto parsed =
        parse(guest_with(net_with("")) + guest_with(net_with("", "net0", "0:4.0", "vm1"), "vm1"));
    EXPECT_TRUE(parsed.has_value()) << joined(parsed.error());
}

TEST(Names, socket_twice_is_refused_across_guests_and_nets) {
    expect_problem(guest_with("[[guest.net]]\nname = \"n\"\nsocket = \"/run/vm0.sock\"\n"
                              "endpoint = \"0:6.0\"\n"),
                   {"vm.toml:9:", "/run/vm0.sock", "socket at vm.toml:3"});
}

TEST(Names, endpoint_twice_in_a_guest_is_refused) {
    expect_problem(guest_with(net_with("", "net0", "00:05.0")),
                   {"vm.toml:10:", "0000:00:05.0", "endpoint of guest 'vm0' at vm.toml:6"});
}

TEST(Names, same_endpoint_in_two_guests_is_accepted) {
    EXPECT_TRUE(parse(guest_with("") + guest_with("", "vm1")).has_value());
}

TEST(Peers, pair_that_names_each_other_is_one_link) {
    const auto parsed = parse(two_nets("peer = \"guest:vm0/net1\"", "peer = \"guest:vm0/net0\""));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const auto links = links_of(*parsed);
    ASSERT_EQ(links.size(), 1u);
    EXPECT_EQ(links[0].a.net, 0u);
    ASSERT_TRUE(links[0].b.has_value());
    EXPECT_EQ(links[0].b->net, 1u);
}

TEST(Peers, naming_one_end_is_enough) {
    for (const auto& text :
         {two_nets("peer = \"guest:vm0/net1\"", ""), two_nets("", "peer = \"guest:vm0/net0\"")}) {
        const auto parsed = parse(text);
        ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
        const auto& nets = parsed->guests[0].nets;
        EXPECT_EQ(nets[0].peer.target, "vm0/net1");
        EXPECT_EQ(nets[1].peer.target, "vm0/net0");
        EXPECT_EQ(links_of(*parsed).size(), 1u);
    }
}

TEST(Peers, pair_of_two_guests_is_one_link) {
    const auto parsed = parse(guest_with(net_with("peer = \"guest:vm1/net0\"")) +
                              guest_with(net_with("lcore = 3", "net0", "0:4.0", "vm1"), "vm1"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const auto links = links_of(*parsed);
    ASSERT_EQ(links.size(), 1u);
    EXPECT_EQ(links[0].b->guest, 1u);
    EXPECT_EQ(parsed->guests[0].nets[0].lcore_of(0), 3u) << "the lcore that is named is for both";
}

TEST(Peers, ports_with_devices_are_links_of_their_own) {
    const auto parsed =
        parse(two_nets("peer = \"vdev:net_tap0\"", "peer = \"ethdev:0000:01:00.0\""));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(links_of(*parsed).size(), 2u);
    EXPECT_FALSE(links_of(*parsed)[0].b.has_value());
}

TEST(Peers, missing_port_is_refused_with_the_ones_there_are) {
    expect_problem(two_nets("peer = \"guest:vm0/net2\"", ""),
                   {"vm.toml:11: guest.vm0.net.net0.peer = \"guest:vm0/net2\"", "no such port",
                    "vm0/net0, vm0/net1"});
}

TEST(Peers, port_as_its_own_peer_is_refused) {
    expect_problem(two_nets("peer = \"guest:vm0/net0\"", ""),
                   {"vm.toml:11:", "cannot be its own peer", "name another"});
}

TEST(Peers, pair_that_is_not_mutual_is_refused) {
    expect_problem(
        two_nets("peer = \"guest:vm0/net1\"", "peer = \"vdev:net_tap0\""),
        {"vm.toml:11:", "vm0/net1 has another peer (vm.toml:16)", "peer = \"guest:vm0/net0\""});
}

TEST(Peers, port_as_peer_of_two_is_refused) {
    expect_problem(
        two_nets("peer = \"guest:vm0/net1\"", "") +
            net_with("peer = \"guest:vm0/net1\"", "net2", "0:7.0"),
        {"vm.toml:22: guest.vm0.net.net2.peer", "vm0/net1 has another peer (vm.toml:11)"});
}

TEST(Peers, device_as_peer_of_two_is_refused) {
    expect_problem(two_nets("peer = \"vdev:net_tap0,iface=a\"", "peer = \"vdev:net_tap0,iface=b\""),
                   {"vm.toml:16:", "net_tap0", "peer device at vm.toml:11"});
}

TEST(Peers, ends_may_have_lcores_of_their_own) {
    const auto parsed = parse(two_nets("peer = \"guest:vm0/net1\"\nlcore = 2", "lcore = 3"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    EXPECT_EQ(parsed->guests[0].nets[0].lcore_of(0), 2u);
    EXPECT_EQ(parsed->guests[0].nets[1].lcore_of(0), 3u);
}

TEST(Peers, end_without_lcores_gets_no_more_of_the_others_than_it_has_pairs) {
    const auto parsed =
        parse(two_nets("peer = \"guest:vm0/net1\"\nqueue_pairs = 3\nlcore = [2, 3, 4]",
                       "queue_pairs = 2"));
    ASSERT_TRUE(parsed.has_value()) << joined(parsed.error());
    const Net& peer = parsed->guests[0].nets[1];
    ASSERT_EQ(peer.lcores.size(), 2u);
    EXPECT_EQ(peer.lcore_of(0), 2u);
    EXPECT_EQ(peer.lcore_of(1), 3u);
}

}  // namespace
}  // namespace viommu::app
