// SPDX-License-Identifier: BSD-3-Clause
/// A virtio-iommu in a few lines: enough to answer a correct driver, and to translate for a fake
/// network device. Not a model of the specification; that is lib/device's.
#pragma once

#include <deque>

#include "fake_backend.hh"

namespace viommu::guest::test {

class FakeIommu {
  public:
    explicit FakeIommu(wire::virtio_iommu_config config = default_config()) : config_(config) {}

    static wire::virtio_iommu_config default_config() {
        wire::virtio_iommu_config config{};
        config.page_size_mask = ~uint64_t{0xfff};
        config.input_range = {0u, (uint64_t{1} << 48) - 1};
        config.domain_range = {0u, 0xffffu};
        config.probe_size = 512u;
        return config;
    }

    BackendOptions backend() {
        BackendOptions options;
        options.features |= bit(wire::VIRTIO_IOMMU_F_INPUT_RANGE) |
                            bit(wire::VIRTIO_IOMMU_F_MAP_UNMAP) | bit(wire::VIRTIO_IOMMU_F_PROBE);
        options.config = payload_of(config_);
        options.devices[0] = [this](FakeQueue& q) { return serve_request(q); };
        options.devices[1] = [this](FakeQueue& q) { return serve_event(q); };
        return options;
    }

    std::optional<Gpa> translate(EndpointId endpoint, Iova iova) const {
        const std::lock_guard lock(mutex_);
        const auto domain = endpoints_.find(endpoint);
        if (domain == endpoints_.end()) return std::nullopt;
        for (const auto& m : mappings_)
            if (m.domain == domain->second && m.range.contains(iova))
                return m.gpa + (iova - m.range.first);
        return std::nullopt;
    }
    void fault(const wire::virtio_iommu_fault& fault) {
        const std::lock_guard lock(mutex_);
        faults_.push_back(fault);
    }
    size_t mappings() const {
        const std::lock_guard lock(mutex_);
        return mappings_.size();
    }
    bool attached(EndpointId endpoint) const {
        const std::lock_guard lock(mutex_);
        return endpoints_.count(endpoint) != 0;
    }
    std::atomic<bool> silent{false};  ///< take requests and never answer

  private:
    struct Mapping {
        DomainId domain;
        IovaRange range;
        Gpa gpa;
    };

    bool serve_request(FakeQueue& queue) {
        const auto chain = queue.take();
        if (!chain || silent) return false;
        const auto bytes = queue.read(*chain);
        const auto request = wire::decode(bytes);
        if (!request) return queue.put(chain->head, 0), true;
        std::vector<std::byte> reply;
        if (std::holds_alternative<wire::ProbeRequest>(*request)) reply = properties();
        const std::lock_guard lock(mutex_);
        const Status status = std::visit([&](const auto& r) { return execute(r); }, *request);
        const auto tail = payload_of(wire::virtio_iommu_req_tail{uint8_t(status), {}});
        reply.insert(reply.end(), tail.begin(), tail.end());
        queue.put(chain->head, queue.write(*chain, reply));
        return true;
    }
    bool serve_event(FakeQueue& queue) {
        const std::lock_guard lock(mutex_);
        if (faults_.empty()) return false;
        const auto chain = queue.take();
        if (!chain) return false;
        queue.put(chain->head, queue.write(*chain, payload_of(faults_.front())));
        faults_.pop_front();
        return true;
    }
    std::vector<std::byte> properties() const {
        wire::virtio_iommu_probe_resv_mem msi{};
        msi.head.type = wire::VIRTIO_IOMMU_PROBE_T_RESV_MEM;
        msi.head.length = uint16_t(sizeof msi - sizeof msi.head);
        msi.subtype = wire::VIRTIO_IOMMU_RESV_MEM_T_MSI;
        msi.start = 0xfee00000u;
        msi.end = 0xfeefffffu;
        auto bytes = payload_of(msi);
        bytes.resize(config_.probe_size);
        return bytes;
    }
    Status execute(const wire::AttachRequest& r) {
        endpoints_[r.endpoint] = r.domain;
        return Status::kOk;
    }
    Status execute(const wire::DetachRequest& r) {
        return endpoints_.erase(r.endpoint) != 0 ? Status::kOk : Status::kNoEnt;
    }
    Status execute(const wire::MapRequest& r) {
        const auto range = IovaRange::from_bounds(r.first, r.last);
        if (!range) return Status::kInval;
        for (const auto& m : mappings_)
            if (m.domain == r.domain && m.range.overlaps(*range)) return Status::kInval;
        mappings_.push_back({r.domain, *range, r.gpa});
        return Status::kOk;
    }
    Status execute(const wire::UnmapRequest& r) {
        const auto range = IovaRange::from_bounds(r.first, r.last);
        if (!range) return Status::kInval;
        for (const auto& m : mappings_)
            if (m.domain == r.domain && m.range.overlaps(*range) && !range->contains(m.range))
                return Status::kRange;
        std::erase_if(mappings_, [&](const Mapping& m) {
            return m.domain == r.domain && range->contains(m.range);
        });
        return Status::kOk;
    }
    Status execute(const wire::ProbeRequest&) { return Status::kOk; }

    const wire::virtio_iommu_config config_;
    mutable std::mutex mutex_;
    std::map<EndpointId, DomainId> endpoints_;
    std::vector<Mapping> mappings_;
    std::deque<wire::virtio_iommu_fault> faults_;
};

}  // namespace viommu::guest::test
