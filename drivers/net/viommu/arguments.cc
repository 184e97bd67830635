// SPDX-License-Identifier: BSD-3-Clause
#include "arguments.hh"

#include <rte_ether.h>
#include <rte_kvargs.h>

#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>

#include "bdf.hh"

namespace viommu::pmd {
namespace {

constexpr const char* kKeys[] = {"iface", "arena",   "endpoint", "queues",    "mac",
                                 "mtu",   "control", "offloads", "dirty-log", "rings",
                                 "speed", "timeout", nullptr};

Result<uint32_t> number(std::string_view key, std::string_view text, uint32_t least,
                        uint32_t most) {
    uint32_t value = 0;
    const bool hex = text.starts_with("0x") || text.starts_with("0X");
    const std::string_view digits = hex ? text.substr(2) : text;
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, value, hex ? 16 : 10);
    if (error != std::errc{} || stop != end || digits.empty() || value < least || value > most)
        return fail("{}={}: a number from {} to {} is wanted", key, text, least, most);
    return value;
}

/// Sets or clears a flag that `1` means, or `0`.
Result<void> flag(std::string_view key, std::string_view text, bool means_off, uint32_t bit,
                  uint32_t& flags) {
    const auto value = number(key, text, 0, 1);
    if (!value) return tl::unexpected(value.error());
    if ((*value != 0) != means_off) flags |= bit;
    return {};
}

Result<void> rings(std::string_view text, uint32_t& flags) {
    if (text == "iova")
        flags |= VIOMMU_NET_RINGS_IOVA;
    else if (text == "uva")
        flags |= VIOMMU_NET_RINGS_UVA;
    else if (text != "auto")
        return fail("rings={}: auto, iova or uva is wanted", text);
    return {};
}

Result<void> mac(const std::string& text, uint8_t (&out)[6]) {
    rte_ether_addr address;
    if (rte_ether_unformat_addr(text.c_str(), &address) != 0 ||
        !rte_is_valid_assigned_ether_addr(&address))
        return fail("mac={}: the address of one station is wanted, as 52:54:00:00:00:01", text);
    std::memcpy(out, address.addr_bytes, sizeof out);
    return {};
}

/// f(value) for a number.
template <class F>
Result<void> take(Result<uint32_t> value, F&& f) {
    if (!value) return tl::unexpected(value.error());
    f(*value);
    return {};
}

Result<void> apply(Arguments& a, std::string_view key, const std::string& value) {
    viommu_net_options& o = a.options;
    if (key == "iface" || key == "arena") {
        (key == "iface" ? a.iface : a.arena) = value;
        return {};
    }
    if (key == "endpoint")
        return take(
            value.find(':') != value.npos ? parse_bdf(value) : number(key, value, 0, UINT32_MAX),
            [&](uint32_t n) { o.endpoint = n; });
    if (key == "queues")
        return take(number(key, value, 1, 64), [&](uint32_t n) { a.queues = uint16_t(n); });
    if (key == "mac") return mac(value, o.mac);
    if (key == "mtu")
        return take(number(key, value, RTE_ETHER_MIN_MTU, 65535),
                    [&](uint32_t n) { a.mtu = uint16_t(n); });
    if (key == "speed")
        return take(number(key, value, 1, INT32_MAX), [&](uint32_t n) { o.speed_mbps = n; });
    if (key == "timeout")
        return take(number(key, value, 1, INT32_MAX), [&](uint32_t n) { o.timeout_ms = n; });
    if (key == "rings") return rings(value, o.flags);
    if (key == "control") return flag(key, value, false, VIOMMU_NET_CONTROL_QUEUE, o.flags);
    if (key == "dirty-log") return flag(key, value, false, VIOMMU_NET_DIRTY_LOG, o.flags);
    return flag(key, value, true, VIOMMU_NET_NO_OFFLOADS, o.flags);  // "offloads"
}

struct Freer {
    void operator()(rte_kvargs* list) const { rte_kvargs_free(list); }
};

}  // namespace

Result<Arguments> parse(const char* devargs) {
    const std::unique_ptr<rte_kvargs, Freer> list(rte_kvargs_parse(devargs, kKeys));
    if (!list) return fail("'{}': the keys are: " VIOMMU_PMD_KEYS, devargs);
    Arguments out;
    bool endpoint = false;
    for (unsigned i = 0; i < list->count; ++i) {
        const auto& pair = list->pairs[i];
        if (pair.value == nullptr || *pair.value == 0) return fail("{}: no value", pair.key);
        endpoint = endpoint || std::string_view(pair.key) == "endpoint";
        if (auto ok = apply(out, pair.key, pair.value); !ok) return tl::unexpected(ok.error());
    }
    if (out.iface.empty()) return fail("iface=: the vhost-user socket to make is missing");
    if (out.arena.empty()) return fail("arena=: the guest's `readers` socket is missing");
    if (!endpoint) return fail("endpoint=: the port's PCI address, 0000:00:04.0, is missing");
    return out;
}

}  // namespace viommu::pmd
