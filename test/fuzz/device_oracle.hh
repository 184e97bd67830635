// SPDX-License-Identifier: BSD-3-Clause
/// What a virtio-iommu answers: the specification's statuses in front of the model tests' oracle of
/// mappings. Requests are read by the offsets of virtio 1.3, 5.13.6, with nothing of lib/wire.
#pragma once

#include <string>

#include "../model/oracle.hh"
#include "input.hh"
#include "viommu_device.hh"

namespace viommu::fuzz {

using Bytes = std::vector<std::byte>;

inline uint64_t number(std::span<const std::byte> from, size_t offset, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | uint8_t(from[offset + i]);
    return value;
}
inline void append(Bytes& to, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) to.push_back(std::byte(value >> 8 * i));
}

/// A request's answer, or what is known of it.
struct Expected {
    Bytes reply;                  ///< empty: used length 0
    bool takes_away = false;      ///< readers lose something: the answer must wait
    bool may_lack_nodes = false;  ///< NOMEM is as right: the arena may not hold it
    uint64_t pages = 0;           ///< of a MAP
};

struct DeviceOracle {
    const device::Config& config;
    test::Oracle table;
    std::optional<bool> bypass_before{};

    explicit DeviceOracle(const device::Config& c)
        : config(c),
          table{c.page_size_mask & -c.page_size_mask, c.input_range, c.bypass && !c.legacy_bypass,
                {}, {}} {
        for (const EndpointId e : c.endpoints) {
            table.endpoints[e] = std::nullopt;
            for (const device::ReservedRegion& r : regions(e))
                table.reserved[e].push_back(
                    {r.range, r.type == device::ReservedRegion::Type::kReserved});
        }
    }

    uint64_t mappings() const {
        uint64_t n = 0;
        for (const auto& [id, d] : table.domains) n += d.mappings.size();
        return n;
    }
    uint64_t attached_to(DomainId domain) const {
        uint64_t n = 0;
        for (const auto& [e, d] : table.endpoints) n += d == domain;
        return n;
    }

    /// Those of all endpoints, then its own.
    std::vector<device::ReservedRegion> regions(EndpointId e) const {
        auto all = config.reserved;
        if (const auto own = config.endpoint_reserved.find(e);
            own != config.endpoint_reserved.end())
            all.insert(all.end(), own->second.begin(), own->second.end());
        return all;
    }
    /// 5.13.6.7
    Bytes properties(EndpointId e) const {
        Bytes out;
        for (const device::ReservedRegion& r : regions(e)) {
            append(out, 1, 2);   // RESV_MEM
            append(out, 20, 2);  // bytes that follow
            append(out, r.type == device::ReservedRegion::Type::kMsi, 1);
            append(out, 0, 3);
            append(out, r.range.first.value, 8);
            append(out, r.range.last.value, 8);
        }
        out.resize(probe_size());
        return out;
    }
    /// Room for the endpoint that has most.
    size_t probe_size() const {
        size_t most = 0;
        for (const EndpointId e : config.endpoints) most = std::max(most, regions(e).size());
        return most * 24 + 4;
    }

    /// 5.13.4
    Bytes config_space() const {
        Bytes out;
        append(out, config.page_size_mask, 8);
        append(out, config.input_range.first.value, 8);
        append(out, config.input_range.last.value, 8);
        append(out, config.domain_first, 4);
        append(out, config.domain_last, 4);
        append(out, probe_size(), 4);
        append(out, table.bypass && !config.legacy_bypass, 1);
        append(out, 0, 3);
        return out;
    }

    // What decides about endpoints that are attached to nothing (5.13.4; device::Device).
    void features_acked(uint64_t features) {
        if (config.legacy_bypass) table.bypass = (features >> 3 & 1) != 0;
    }
    void write_config(uint32_t offset, std::span<const std::byte> in) {
        if (offset > 36 || 36 - offset >= in.size()) return;
        bypass_before.reset();
        const auto value = uint8_t(in[36 - offset]);
        if (value <= 1 && !config.legacy_bypass) table.bypass = value == 1;
    }
    void connected() {
        if (!bypass_before) bypass_before = table.bypass;
        table.bypass = config.bypass && !config.legacy_bypass;
    }
    void resumed() {
        if (bypass_before && !config.legacy_bypass) table.bypass = *bypass_before;
        bypass_before.reset();
    }
    void reset() {
        table.reset();
        bypass_before.reset();
    }

    /// Execute `request`, of which the device may write `room` bytes.
    Expected handle(std::span<const std::byte> request, size_t room) {
        constexpr size_t kReadable[] = {0, 20, 20, 36, 28, 72};
        const unsigned type = request.size() < 4 ? 0 : unsigned(request[0]);
        if (type < 1 || type > 5 || request.size() < kReadable[type] || room < 4) return {};
        if (type == 5) return probe(EndpointId(number(request, 4, 4)), room);
        Expected e;
        Status status = Status::kDevErr;
        const auto domain = DomainId(number(request, 4, 4));
        if (type == 1) status = attach(request, domain, e);
        if (type == 2) status = detach(EndpointId(number(request, 8, 4)), domain, e);
        if (type == 3) status = map(request, domain, e);
        if (type == 4) status = unmap(request, domain, e);
        append(e.reply, uint64_t(status), 4);
        return e;
    }

    /// What it did cannot be, the arena was full: as if nothing had happened.
    static void fail(Expected& e) { e.reply[0] = std::byte(uint8_t(Status::kNoMem)); }

  private:
    Expected probe(EndpointId endpoint, size_t room) const {
        Expected e;
        if (room < probe_size() + 4) {
            e.reply.resize(room - 4);
            append(e.reply, uint64_t(Status::kInval), 4);
        } else if (!table.endpoints.contains(endpoint)) {
            e.reply.resize(probe_size());
            append(e.reply, uint64_t(Status::kNoEnt), 4);
        } else {
            e.reply = properties(endpoint);
            append(e.reply, uint64_t(Status::kOk), 4);
        }
        return e;
    }

    Status attach(std::span<const std::byte> r, DomainId domain, Expected& e) {
        const auto endpoint = EndpointId(number(r, 8, 4));
        const uint64_t flags = number(r, 12, 4);
        if (number(r, 16, 4) != 0 || flags > !config.legacy_bypass) return Status::kInval;
        if (!table.endpoints.contains(endpoint)) return Status::kNoEnt;
        if (domain < config.domain_first || domain > config.domain_last) return Status::kRange;
        const auto old = table.endpoints[endpoint];
        if (!table.domains.contains(domain)) {
            const bool ends_old = old && attached_to(*old) == 1;
            if (table.domains.size() - ends_old >= config.max_domains) return Status::kNoMem;
            e.may_lack_nodes = flags == 0;
        }
        const Status s = table.attach(endpoint, domain, flags == 1);
        e.takes_away = s == Status::kOk && old && old != domain;
        return s;
    }

    Status detach(EndpointId endpoint, DomainId domain, Expected& e) {
        const Status s = table.detach(endpoint, domain);
        e.takes_away = s == Status::kOk;
        return s;
    }

    Status map(std::span<const std::byte> r, DomainId domain, Expected& e) {
        const uint64_t first = number(r, 8, 8), last = number(r, 16, 8), gpa = number(r, 24, 8);
        const uint64_t flags = number(r, 32, 4);
        if (flags > 7) return Status::kInval;
        if (last < first) return Status::kRange;
        const uint64_t before = mappings();
        const Status s = table.map(domain, first, last, gpa, Access(flags));
        if (s != Status::kOk) return s;
        e.pages = (last - first) / table.granule + 1;
        e.may_lack_nodes = true;
        if (before < config.max_mappings) return s;
        table.domains[domain].mappings.pop_back();
        return Status::kNoMem;
    }

    Status unmap(std::span<const std::byte> r, DomainId domain, Expected& e) {
        const uint64_t first = number(r, 8, 8), last = number(r, 16, 8);
        if (number(r, 24, 4) != 0) return Status::kInval;
        if (last < first) return Status::kRange;
        const uint64_t before = mappings();
        const Status s = table.unmap(domain, first, last);
        e.takes_away = mappings() != before;
        return s;
    }
};

}  // namespace viommu::fuzz
