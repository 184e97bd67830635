// SPDX-License-Identifier: BSD-3-Clause
#include "packets.hh"
#include "rss.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

// The key and the hashes that Microsoft publishes to check implementations with ("Verifying the RSS
// hash calculation", Windows driver documentation).
constexpr uint8_t kKey[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                              0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                              0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                              0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

std::array<uint32_t, 10> key_words() {
    std::array<uint32_t, 10> w;
    for (size_t i = 0; i < 10; ++i)
        w[i] = uint32_t{kKey[4 * i]} << 24 | kKey[4 * i + 1] << 16 | kKey[4 * i + 2] << 8 |
               kKey[4 * i + 3];
    return w;
}

/// Toeplitz bit by bit, as the definition has it.
uint32_t toeplitz(const Bytes& input) {
    uint32_t hash = 0;
    for (size_t i = 0; i < input.size() * 8; ++i) {
        if ((unsigned(input[i / 8]) >> (7 - i % 8) & 1) == 0) continue;
        for (size_t k = 0; k < 32; ++k)
            hash ^= uint32_t(kKey[(i + k) / 8] >> (7 - (i + k) % 8) & 1) << (31 - k);
    }
    return hash;
}

struct Vector {
    std::vector<uint16_t> destination, source;  // groups; IPv4: two
    uint16_t destination_port, source_port;
    uint32_t ip_hash, tcp_hash;
};
const Vector kVectors[] = {
    {{161 << 8 | 142, 100 << 8 | 80}, {66 << 8 | 9, 149 << 8 | 187}, 1766, 2794, 0x323e8fc2,
     0x51ccc178},
    {{65 << 8 | 69, 140 << 8 | 83}, {199 << 8 | 92, 111 << 8 | 2}, 4739, 14230, 0xd718262a,
     0xc626b0ea},
    {{12 << 8 | 22, 207 << 8 | 184}, {24 << 8 | 19, 198 << 8 | 95}, 38024, 12898, 0xd2d0a5de,
     0x5c2b394a},
    {{209 << 8 | 142, 163 << 8 | 6}, {38 << 8 | 27, 205 << 8 | 30}, 2217, 48228, 0x82989176,
     0xafc7327f},
    {{202 << 8 | 188, 127 << 8 | 2}, {153 << 8 | 39, 163 << 8 | 191}, 1303, 44251, 0x5d1809c5,
     0x10e828a2},
    {{0x3ffe, 0x2501, 0x200, 3, 0, 0, 0, 1}, {0x3ffe, 0x2501, 0x200, 0x1fff, 0, 0, 0, 7}, 1766,
     2794, 0x2cc18cd5, 0x40207d3d},
    {{0xff02, 0, 0, 0, 0, 0, 0, 1}, {0x3ffe, 0x501, 8, 0, 0x260, 0x97ff, 0xfe40, 0xefab}, 4739,
     14230, 0x0f0c461c, 0xdde51bbf},
    {{0xfe80, 0, 0, 0, 0x200, 0xf8ff, 0xfe21, 0x67cf},
     {0x3ffe, 0x1900, 0x4545, 3, 0x200, 0xf8ff, 0xfe21, 0x67cf}, 38024, 44251, 0x4b61e985,
     0x02d1feef},
};

Bytes packet_of(const Vector& v, bool udp, unsigned vlans = 0) {
    const Shape s{.v6 = v.source.size() == 8, .udp = udp, .vlans = vlans};
    Bytes b = make_packet(s);
    const size_t at = s.l2() + (s.v6 ? 8 : 12), n = v.source.size();
    for (size_t i = 0; i < n; ++i) {
        put16(b, at + 2 * i, v.source[i]);
        put16(b, at + 2 * (n + i), v.destination[i]);
    }
    put16(b, s.l4(), v.source_port);
    put16(b, s.l4() + 2, v.destination_port);
    return b;
}
std::optional<uint32_t> hash_of(const Pool& pool, const Bytes& b, uint32_t types,
                                size_t segment = 2048) {
    rte_mbuf* m = pool.packet(b, segment);
    const auto key = key_words();
    const auto h = rss_hash(*m, types, key);
    rte_pktmbuf_free(m);
    return h;
}

TEST(RssHash, published_vectors_come_out) {
    Pool pool(255);
    for (const Vector& v : kVectors) {
        const bool v6 = v.source.size() == 8;
        const uint32_t ip = v6 ? VIRTIO_NET_HASH_TYPE_IPv6 : VIRTIO_NET_HASH_TYPE_IPv4;
        const uint32_t tcp = v6 ? VIRTIO_NET_HASH_TYPE_TCPv6 : VIRTIO_NET_HASH_TYPE_TCPv4;
        const uint32_t udp = v6 ? VIRTIO_NET_HASH_TYPE_UDPv6 : VIRTIO_NET_HASH_TYPE_UDPv4;
        for (const unsigned vlans : {0u, 1u, 2u}) {
            for (const size_t segment : {size_t{2048}, size_t{7}}) {
                const Bytes t = packet_of(v, false, vlans), u = packet_of(v, true, vlans);
                EXPECT_EQ(hash_of(pool, t, ip | tcp, segment), v.tcp_hash);
                EXPECT_EQ(hash_of(pool, t, ip | udp, segment), v.ip_hash);
                EXPECT_EQ(hash_of(pool, t, ip, segment), v.ip_hash);
                EXPECT_EQ(hash_of(pool, u, ip | udp, segment), v.tcp_hash) << "the same ports";
                EXPECT_EQ(hash_of(pool, u, ip | tcp, segment), v.ip_hash);
                EXPECT_EQ(hash_of(pool, t, kRssHashTypes & ~(ip | tcp), segment), std::nullopt);
            }
        }
    }
}

TEST(RssHash, fragments_go_with_their_addresses) {
    Pool pool(63);
    const Vector& v = kVectors[0];
    Bytes b = packet_of(v, true);
    for (const unsigned offset : {0x2000u, 0x2010u, 0x0010u}) {
        put16(b, 14 + 6, offset);
        EXPECT_EQ(hash_of(pool, b, kRssHashTypes), v.ip_hash) << offset;
    }
}

TEST(RssHash, extension_headers_are_skipped) {
    Pool pool(63);
    const Vector& v = kVectors[5];
    Bytes b = packet_of(v, false);
    // A hop-by-hop header of 8 bytes.
    const Bytes extension(8, std::byte{0});
    b.insert(b.begin() + 54, extension.begin(), extension.end());
    b[54] = std::byte{6};
    b[14 + 6] = std::byte{0};
    EXPECT_EQ(hash_of(pool, b, kRssHashTypes), v.tcp_hash);
}

TEST(RssHash, what_is_not_ip_or_cut_off_has_none) {
    Pool pool(63);
    Bytes arp = frame(60);
    put16(arp, 12, 0x0806);
    EXPECT_EQ(hash_of(pool, arp, kRssHashTypes), std::nullopt);
    Bytes b = packet_of(kVectors[0], false);
    b.resize(30);
    EXPECT_EQ(hash_of(pool, b, kRssHashTypes), std::nullopt);
}

TEST(RssHash, is_toeplitz_by_definition) {
    Pool pool(63);
    std::mt19937 random(choose_seed());
    for (int i = 0; i < 300; ++i) {
        const std::vector<uint16_t> address(i % 2 != 0 ? 8 : 2);
        Vector v{address, address, uint16_t(random()), uint16_t(random()), 0, 0};
        for (auto* a : {&v.source, &v.destination})
            for (auto& g : *a) g = uint16_t(random());
        Bytes input;
        const auto add = [&](uint16_t g) {
            input.push_back(std::byte(g >> 8));
            input.push_back(std::byte(g));
        };
        for (const auto g : v.source) add(g);
        for (const auto g : v.destination) add(g);
        EXPECT_EQ(hash_of(pool, packet_of(v, false), VIRTIO_NET_HASH_TYPE_IPv4 |
                                                         VIRTIO_NET_HASH_TYPE_IPv6),
                  toeplitz(input));
        add(v.source_port);
        add(v.destination_port);
        EXPECT_EQ(hash_of(pool, packet_of(v, false), kRssHashTypes), toeplitz(input));
    }
}

// --- the command ---------------------------------------------------------------------------------

struct Command {
    uint32_t types = kRssHashTypes;
    uint16_t mask = 3;
    uint16_t unclassified = 1;
    std::vector<uint16_t> table{0, 1, 2, 3};
    uint16_t max_tx = 4;
    std::vector<uint8_t> key{kKey, kKey + 40};
    std::optional<uint8_t> key_length{};

    Bytes bytes() const {
        Bytes b;
        const auto le = [&](uint64_t v, int n) {
            for (int i = 0; i < n; ++i) b.push_back(std::byte(v >> 8 * i));
        };
        le(types, 4);
        le(mask, 2);
        le(unclassified, 2);
        for (const auto t : table) le(t, 2);
        le(max_tx, 2);
        le(key_length.value_or(uint8_t(key.size())), 1);
        for (const auto k : key) le(k, 1);
        return b;
    }
};

TEST(RssDecode, command_is_understood) {
    const auto rss = Rss::decode(Command{}.bytes(), 4);
    ASSERT_TRUE(rss);
    EXPECT_EQ(rss->entries, 4u);
    EXPECT_EQ(rss->pairs, 4u);
    EXPECT_EQ(rss->unclassified_pair, 1u);
    EXPECT_EQ(rss->table[3], 3u);
    EXPECT_EQ(std::memcmp(rss->key.data(), kKey, 40), 0);
    EXPECT_TRUE(Rss::decode(Command{.key = {1, 2, 3}}.bytes(), 4)) << "a short key";
    EXPECT_TRUE(Rss::decode(Command{.types = 0, .key = {}}.bytes(), 4)) << "Linux, RSS off";
    EXPECT_EQ(Rss::decode(Command{.table = {0, 0, 0, 0}, .max_tx = 3}.bytes(), 4)->pairs, 3u);
}

TEST(RssDecode, every_truncation_and_excess_but_linux_padding_is_refused) {
    const Bytes whole = Command{}.bytes();
    for (size_t n = 0; n < whole.size(); ++n)
        EXPECT_FALSE(Rss::decode(std::span(whole).first(n), 4)) << n;
    Bytes longer = whole;
    longer.push_back(std::byte{0xff});
    EXPECT_EQ(Rss::decode(longer, 4), Rss::decode(whole, 4));
    longer.push_back({});
    EXPECT_FALSE(Rss::decode(longer, 4));
}

TEST(RssDecode, what_the_device_does_not_have_is_refused) {
    const auto refused = [](const Command& c) { return !Rss::decode(c.bytes(), 4); };
    EXPECT_TRUE(refused({.types = 1 << 6})) << "IP_EX";
    EXPECT_TRUE(refused({.mask = 2, .table = {0, 1, 2}})) << "no power of 2";
    EXPECT_TRUE(refused({.mask = 255, .table = std::vector<uint16_t>(256)})) << "table too large";
    EXPECT_FALSE(refused({.mask = 127, .table = std::vector<uint16_t>(128)}));
    EXPECT_TRUE(refused({.mask = 0xffff}));
    EXPECT_TRUE(refused({.unclassified = 4}));
    EXPECT_TRUE(refused({.table = {0, 1, 2, 4}}));
    EXPECT_TRUE(refused({.table = {0, 1, 2, 0x7fff}}));
    EXPECT_TRUE(refused({.max_tx = 0}));
    EXPECT_TRUE(refused({.max_tx = 5}));
    EXPECT_TRUE(refused({.key = {}})) << "something to hash and no key";
    EXPECT_TRUE(refused({.key = std::vector<uint8_t>(41)}));
    EXPECT_TRUE(refused({.key_length = 38}));
    EXPECT_TRUE(refused({.key_length = 255}));
}

TEST(Steering, follows_table_hash_and_unclassified_queue) {
    Pool pool(63);
    Steering steering;
    rte_mbuf* arp = pool.packet(Bytes(60));
    EXPECT_EQ(steering.pair_for(*arp, 5), 0u) << "one pair";
    steering.set_pairs(3);
    EXPECT_EQ(steering.pair_for(*arp, 2), 2u);
    EXPECT_EQ(steering.pair_for(*arp, 5), 2u);
    EXPECT_FALSE(steering.is_by_hash());

    std::mt19937 random(choose_seed());
    Command c{.mask = 127, .unclassified = 2, .table = std::vector<uint16_t>(128)};
    for (auto& t : c.table) t = uint16_t(random() % 4);
    steering.set(*Rss::decode(c.bytes(), 4));
    EXPECT_EQ(steering.pairs(), 4u);
    EXPECT_EQ(steering.pair_for(*arp, 3), 2u);
    for (const Vector& v : kVectors) {
        rte_mbuf* m = pool.packet(packet_of(v, false));
        EXPECT_EQ(steering.pair_for(*m, 0), c.table[v.tcp_hash & 127]);
        rte_pktmbuf_free(m);
    }
    steering.set_pairs(1);
    EXPECT_EQ(steering.pair_for(*arp, 3), 0u) << "5.1.6.5.6: the last command counts";
    rte_pktmbuf_free(arp);
}

}  // namespace
}  // namespace viommu::net::test
