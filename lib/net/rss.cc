// SPDX-License-Identifier: BSD-3-Clause
#include "rss.hh"

#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_net.h>
#include <rte_thash.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace viommu::net {

using namespace wire;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
/// Linux (6.12.117) sends the padding of its struct with the last two fields, too.
constexpr size_t kPadding = 1;
constexpr uint16_t kQueueId = 0x7fff;  // struct rss_rq_id: the reserved bit left out

template <class T>
std::optional<T> take(std::span<const std::byte>& from) {
    if (from.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, from.data(), sizeof value);
    from = from.subspan(sizeof value);
    return value;
}

}  // namespace

std::optional<Rss> Rss::decode(std::span<const std::byte> data, uint16_t max_pairs) {
    Rss rss;
    const auto head = take<virtio_net_rss_config_head>(data);
    if (!head) return std::nullopt;
    rss.hash_types = head->hash_types;
    const uint32_t entries = uint32_t{head->indirection_table_mask} + 1;
    if ((rss.hash_types & ~kRssHashTypes) != 0 || entries > kRssMaxTable ||
        !std::has_single_bit(entries))
        return std::nullopt;
    rss.entries = uint16_t(entries);
    rss.unclassified_pair = head->unclassified_queue & kQueueId;
    rss.pairs = uint16_t(rss.unclassified_pair + 1);
    for (uint32_t i = 0; i < entries; ++i) {
        const auto id = take<le16>(data);
        if (!id) return std::nullopt;
        rss.table[i] = uint16_t(*id) & kQueueId;
        rss.pairs = std::max(rss.pairs, uint16_t(rss.table[i] + 1));
    }
    const auto tail = take<virtio_net_rss_config_tail>(data);
    if (!tail || tail->max_tx_vq == 0) return std::nullopt;
    rss.pairs = std::max(rss.pairs, uint16_t(tail->max_tx_vq));
    rss.key_bytes = tail->hash_key_length;
    if (rss.pairs > max_pairs || rss.key_bytes > kRssMaxKeyBytes || rss.key_bytes > data.size() ||
        data.size() - rss.key_bytes > kPadding || (rss.key_bytes == 0 && rss.hash_types != 0))
        return std::nullopt;
    std::memcpy(rss.key.data(), data.data(), rss.key_bytes);
    return rss;
}

std::optional<uint32_t> rss_hash(const rte_mbuf& packet, uint32_t types,
                                 std::span<const uint32_t, kRssMaxKeyBytes / 4> key) noexcept {
    rte_net_hdr_lens lens{};
    const uint32_t type = rte_net_get_ptype(
        &packet, &lens, RTE_PTYPE_L2_MASK | RTE_PTYPE_L3_MASK | RTE_PTYPE_L4_MASK);
    const bool v4 = RTE_ETH_IS_IPV4_HDR(type) != 0;
    if (!v4 && !RTE_ETH_IS_IPV6_HDR(type)) return std::nullopt;
    const uint32_t l4 = type & RTE_PTYPE_L4_MASK;
    // A fragment is neither: its first has a header, the others have not, and all belong together.
    const bool ports =
        (l4 == RTE_PTYPE_L4_TCP &&
         (types & (v4 ? VIRTIO_NET_HASH_TYPE_TCPv4 : VIRTIO_NET_HASH_TYPE_TCPv6)) != 0) ||
        (l4 == RTE_PTYPE_L4_UDP &&
         (types & (v4 ? VIRTIO_NET_HASH_TYPE_UDPv4 : VIRTIO_NET_HASH_TYPE_UDPv6)) != 0);
    if (!ports && (types & (v4 ? VIRTIO_NET_HASH_TYPE_IPv4 : VIRTIO_NET_HASH_TYPE_IPv6)) == 0)
        return std::nullopt;

    uint32_t tuple[9];  // source and destination address, ports
    const uint32_t address_words = v4 ? 2 : 8;
    const auto read = [&](uint32_t at, uint32_t words, uint32_t* to) {
        uint32_t copy[8];
        const auto* from = static_cast<const std::byte*>(
            rte_pktmbuf_read(&packet, at, words * 4, copy));
        if (from == nullptr) return false;
        for (uint32_t i = 0; i < words; ++i) {
            uint32_t word;
            std::memcpy(&word, from + size_t{4} * i, sizeof word);
            to[i] = rte_be_to_cpu_32(word);
        }
        return true;
    };
    if (!read(lens.l2_len + (v4 ? 12u : 8u), address_words, tuple)) return std::nullopt;
    if (ports && !read(lens.l2_len + lens.l3_len, 1, tuple + address_words)) return std::nullopt;
    return rte_softrss_be(tuple, address_words + ports,
                          reinterpret_cast<const uint8_t*>(key.data()));
}

template <class F>
void Steering::change(F&& f) noexcept {
    const uint64_t version = version_.load(kRelaxed);
    version_.store(version + 1, kRelaxed);
    std::atomic_thread_fence(std::memory_order_release);  // N1: the odd version before any word
    f();
    version_.store(version + 2, std::memory_order_release);  // N2
}

void Steering::set_pairs(uint16_t pairs) noexcept {
    change([&] {
        by_hash_.store(false, kRelaxed);
        pairs_.store(pairs, kRelaxed);
    });
}

void Steering::set(const Rss& rss) noexcept {
    change([&] {
        for (size_t i = 0; i < key_.size(); ++i) {
            uint32_t word;
            std::memcpy(&word, rss.key.data() + 4 * i, sizeof word);
            key_[i].store(rte_be_to_cpu_32(word), kRelaxed);
        }
        key_bytes_.store(rss.key_bytes, kRelaxed);
        for (size_t i = 0; i < rss.entries; ++i) table_[i].store(rss.table[i], kRelaxed);
        mask_.store(uint16_t(rss.entries - 1), kRelaxed);
        unclassified_.store(rss.unclassified_pair, kRelaxed);
        hash_types_.store(rss.hash_types, kRelaxed);
        pairs_.store(rss.pairs, kRelaxed);
        by_hash_.store(true, kRelaxed);
    });
}

uint64_t Steering::version() const noexcept {
    return version_.load(std::memory_order_acquire);  // N2
}

std::optional<Rss> Steering::snapshot() const noexcept {
    for (int tries = 0; tries < 100; ++tries) {
        const uint64_t before = version();
        Rss rss;
        const bool by_hash = by_hash_.load(kRelaxed);
        for (size_t i = 0; i < key_.size(); ++i) {
            const uint32_t word = rte_cpu_to_be_32(key_[i].load(kRelaxed));
            std::memcpy(rss.key.data() + 4 * i, &word, sizeof word);
        }
        rss.key_bytes = key_bytes_.load(kRelaxed);
        rss.entries = uint16_t(mask_.load(kRelaxed) + 1);
        for (size_t i = 0; i < rss.entries; ++i) rss.table[i] = table_[i].load(kRelaxed);
        rss.unclassified_pair = unclassified_.load(kRelaxed);
        rss.hash_types = hash_types_.load(kRelaxed);
        rss.pairs = pairs_.load(kRelaxed);
        std::atomic_thread_fence(std::memory_order_acquire);  // N1
        if (before % 2 != 0 || version_.load(kRelaxed) != before) continue;
        if (!by_hash) return std::nullopt;
        return rss;
    }
    return std::nullopt;
}

uint16_t Steering::by_hash(const rte_mbuf& packet) const noexcept {
    std::array<uint32_t, kRssMaxKeyBytes / 4> key;
    for (size_t i = 0; i < key.size(); ++i) key[i] = key_[i].load(kRelaxed);
    const auto hash = rss_hash(packet, hash_types_.load(kRelaxed), key);
    const uint16_t pair = hash ? table_[*hash & mask_.load(kRelaxed)].load(kRelaxed)
                               : unclassified_.load(kRelaxed);
    return pair < pairs() ? pair : uint16_t{0};  // words of two settings
}

}  // namespace viommu::net
