// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev_rss.hh"

#include <rte_errno.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <vector>

namespace viommu::app {
namespace {

using namespace wire;

/// What a device calls the same.
struct HashType {
    uint32_t virtio;
    uint64_t ethdev;
};
constexpr HashType kHashTypes[] = {
    {VIRTIO_NET_HASH_TYPE_IPv4,
     RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER},
    {VIRTIO_NET_HASH_TYPE_TCPv4, RTE_ETH_RSS_NONFRAG_IPV4_TCP},
    {VIRTIO_NET_HASH_TYPE_UDPv4, RTE_ETH_RSS_NONFRAG_IPV4_UDP},
    {VIRTIO_NET_HASH_TYPE_IPv6,
     RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER},
    {VIRTIO_NET_HASH_TYPE_TCPv6, RTE_ETH_RSS_NONFRAG_IPV6_TCP},
    {VIRTIO_NET_HASH_TYPE_UDPv6, RTE_ETH_RSS_NONFRAG_IPV6_UDP},
};

uint64_t types_of(uint32_t virtio) {
    uint64_t types = 0;
    for (const HashType& t : kHashTypes)
        if ((virtio & t.virtio) != 0) types |= t.ethdev;
    return types;
}

/// Entry i of the device's table, which repeats the guest's.
template <class F>
Result<void> set_table(uint16_t port, uint16_t size, F&& pair_of) {
    std::vector<rte_eth_rss_reta_entry64> table((size - 1) / RTE_ETH_RETA_GROUP_SIZE + 1);
    for (unsigned i = 0; i < size; i++) {
        auto& group = table[i / RTE_ETH_RETA_GROUP_SIZE];
        group.mask |= uint64_t{1} << i % RTE_ETH_RETA_GROUP_SIZE;
        group.reta[i % RTE_ETH_RETA_GROUP_SIZE] = pair_of(i);
    }
    if (const int error = rte_eth_dev_rss_reta_update(port, table.data(), size); error != 0)
        return fail("cannot set its indirection table: {}", rte_strerror(-error));
    return {};
}

}  // namespace

Result<void> program_rss(uint16_t port, const std::optional<net::Rss>& rss, uint16_t pairs) {
    rte_eth_dev_info info{};
    if (const int error = rte_eth_dev_info_get(port, &info); error != 0)
        return fail("says nothing of itself: {}", rte_strerror(-error));
    if (info.reta_size == 0) return fail("has no indirection table");
    if (!rss)
        return set_table(port, info.reta_size, [&](unsigned i) { return uint16_t(i % pairs); });
    if (info.reta_size % rss->entries != 0)
        return fail("has an indirection table of {} entries, the guest one of {}", info.reta_size,
                    rss->entries);
    if (info.hash_key_size != 0 && info.hash_key_size < rss->key_bytes)
        return fail("takes a hash key of {} bytes, the guest gave {}", info.hash_key_size,
                    rss->key_bytes);
    // What the guest's key has not, is zero.
    std::vector<uint8_t> key(std::max<size_t>(info.hash_key_size, rss->key.size()));
    std::copy(rss->key.begin(), rss->key.end(), key.begin());
    rte_eth_rss_conf conf{};
    conf.rss_key = key.data();
    conf.rss_key_len = uint8_t(key.size());
    conf.rss_hf = types_of(rss->hash_types) & info.flow_type_rss_offloads;
    if (const int error = rte_eth_dev_rss_hash_update(port, &conf); error != 0)
        return fail("cannot set its hash: {}", rte_strerror(-error));
    return set_table(port, info.reta_size,
                     [&](unsigned i) { return rss->table[i % rss->entries]; });
}

}  // namespace viommu::app
