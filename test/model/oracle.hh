// SPDX-License-Identifier: BSD-3-Clause
/// What a table should answer, found out by looking at everything.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "viommu_xlate.hh"

namespace viommu::test {

using xlate::FaultReason;

/// Mappings in a list, looked at one by one, byte ranges compared with no cleverness at all.
struct Oracle {
    struct Mapping {
        uint64_t first, last, gpa;
        Access rights;
    };
    struct Domain {
        bool bypass;
        std::vector<Mapping> mappings;
    };

    uint64_t granule;
    IovaRange input;
    bool bypass = false;
    std::map<DomainId, Domain> domains;
    std::map<EndpointId, std::optional<DomainId>> endpoints;
    std::map<EndpointId, std::vector<table::Reserved>> reserved{};

    /// A region of `e` touches [first, last].
    bool reserves(EndpointId e, uint64_t first, uint64_t last) {
        for (const auto& r : reserved[e])
            if (r.range.first.value <= last && first <= r.range.last.value) return true;
        return false;
    }
    void drop_if_empty(DomainId id) {
        for (const auto& [e, d] : endpoints)
            if (d == id) return;
        domains.erase(id);
    }
    Status attach(EndpointId e, DomainId id, bool as_bypass) {
        if (!endpoints.count(e)) return Status::kNoEnt;
        if (domains.count(id) && domains[id].bypass != as_bypass) return Status::kInval;
        if (domains.count(id) && endpoints[e] != id)
            for (const auto& m : domains[id].mappings)
                if (reserves(e, m.first, m.last)) return Status::kUnsupp;
        if (!domains.count(id)) domains[id] = {as_bypass, {}};
        const auto old = endpoints[e];
        endpoints[e] = id;
        if (old) drop_if_empty(*old);
        return Status::kOk;
    }
    Status detach(EndpointId e, DomainId id) {
        if (!endpoints.count(e)) return Status::kNoEnt;
        if (endpoints[e] != id) return Status::kInval;
        endpoints[e].reset();
        drop_if_empty(id);
        return Status::kOk;
    }
    Status map(DomainId id, uint64_t first, uint64_t last, uint64_t gpa, Access rights) {
        if (!domains.count(id)) return Status::kNoEnt;
        Domain& d = domains[id];
        if (d.bypass) return Status::kInval;
        if (first % granule || (last + 1) % granule || gpa % granule) return Status::kRange;
        if (first < input.first.value || last > input.last.value) return Status::kRange;
        if (gpa + (last - first) < gpa) return Status::kRange;
        for (const auto& [e, attached] : endpoints)
            if (attached == id && reserves(e, first, last)) return Status::kInval;
        for (const auto& m : d.mappings)
            if (m.first <= last && first <= m.last) return Status::kInval;
        d.mappings.push_back({first, last, gpa, rights});
        return Status::kOk;
    }
    Status unmap(DomainId id, uint64_t first, uint64_t last) {
        if (!domains.count(id)) return Status::kNoEnt;
        Domain& d = domains[id];
        if (d.bypass) return Status::kInval;
        const auto touched = [&](const Mapping& m) { return m.first <= last && first <= m.last; };
        for (const auto& m : d.mappings)
            if (touched(m) && (m.first < first || m.last > last)) return Status::kRange;
        std::erase_if(d.mappings, touched);
        return Status::kOk;
    }
    void reset() {
        domains.clear();
        for (auto& [e, d] : endpoints) d.reset();
    }

    const Mapping* covering(const Domain& d, uint64_t iova) const {
        for (const auto& m : d.mappings)
            if (m.first <= iova && iova <= m.last) return &m;
        return nullptr;
    }
    /// {gpa, bytes}, bytes 0 for a fault whose reason is then in gpa.
    std::pair<uint64_t, uint64_t> translate(EndpointId e, uint64_t iova, uint64_t bytes,
                                            Access need) const {
        const auto& id = endpoints.at(e);
        if (!id && !bypass) return {uint64_t(FaultReason::kDomain), 0};
        if (!id || domains.at(*id).bypass) {
            const auto regions = reserved.find(e);
            if (regions == reserved.end()) return {iova, bytes};
            for (const auto& r : regions->second) {
                if (!r.faults_in_bypass || r.range.last.value < iova) continue;
                if (r.range.first.value <= iova) return {uint64_t(FaultReason::kMapping), 0};
                bytes = std::min(bytes, r.range.first.value - iova);
            }
            return {iova, bytes};
        }
        uint64_t gpa = 0;
        uint64_t have = 0;
        bool mmio = false;
        while (have < bytes) {
            const Mapping* m = covering(domains.at(*id), iova + have);
            if (m == nullptr || !allows(m->rights, need)) break;
            const uint64_t here = m->gpa + (iova + have - m->first);
            if (have == 0) gpa = here;
            if (here != gpa + have) break;
            // Memory and device registers are never one run.
            if (have != 0 && mmio != ((m->rights & Access::kMmio) != Access::kNone)) break;
            mmio = (m->rights & Access::kMmio) != Access::kNone;
            have += std::min(bytes - have, m->last - (iova + have) + 1);
        }
        if (have == 0) return {uint64_t(FaultReason::kMapping), 0};
        return {gpa, have};
    }
};

}  // namespace viommu::test
