// SPDX-License-Identifier: BSD-3-Clause
/// Two virtio-net devices, wired to each other, behind a FakeIommu.
#pragma once

#include "fake_iommu.hh"

namespace viommu::guest::test {

/// Packets on their way; both ends are threads of their own.
class Wire {
  public:
    void put(std::vector<std::byte> packet) {
        const std::lock_guard lock(mutex_);
        packets_.push_back(std::move(packet));
    }
    std::optional<std::vector<std::byte>> take() {
        const std::lock_guard lock(mutex_);
        if (packets_.empty()) return std::nullopt;
        auto packet = std::move(packets_.front());
        packets_.pop_front();
        return packet;
    }

  private:
    std::mutex mutex_;
    std::deque<std::vector<std::byte>> packets_;
};

class FakeNet {
  public:
    FakeNet(FakeIommu& iommu, EndpointId endpoint, Wire& out, Wire& in)
        : iommu_(iommu), endpoint_(endpoint), out_(out), in_(in) {}

    BackendOptions backend() {
        BackendOptions options;
        options.features |= bit(wire::VIRTIO_F_ACCESS_PLATFORM) | bit(wire::VIRTIO_NET_F_MAC) |
                            bit(wire::VIRTIO_NET_F_MRG_RXBUF) | bit(wire::VIRTIO_F_INDIRECT_DESC);
        wire::virtio_net_config config{};
        config.mac[0] = 0x02;
        config.mac[5] = uint8_t(endpoint_);
        options.config = payload_of(config);
        options.translate = [this](uint64_t bus) { return iommu_.translate(endpoint_, Iova{bus}); };
        options.devices[0] = [this](FakeQueue& q) { return serve_rx(q); };
        options.devices[1] = [this](FakeQueue& q) { return serve_tx(q); };
        return options;
    }
    std::atomic<unsigned> indirect_chains{0}, direct_segments{0};
    /// num_buffers of every packet, instead of the truth.
    std::atomic<int> lie_about_buffers{-1};

  private:
    bool serve_tx(FakeQueue& queue) {
        const auto chain = queue.take();
        if (!chain) return false;
        indirect_chains += chain->indirect;
        direct_segments += unsigned(chain->readable.size());
        const auto bad = queue.unreachable(*chain);
        if (bad) {
            wire::virtio_iommu_fault fault{};
            fault.reason = wire::VIRTIO_IOMMU_FAULT_R_MAPPING;
            fault.flags = wire::VIRTIO_IOMMU_FAULT_F_READ | wire::VIRTIO_IOMMU_FAULT_F_ADDRESS;
            fault.endpoint = endpoint_;
            fault.address = *bad;
            iommu_.fault(fault);
        } else {
            auto bytes = queue.read(*chain);
            out_.put({bytes.begin() + sizeof(wire::virtio_net_hdr), bytes.end()});
        }
        queue.put(chain->head, 0);
        return true;
    }

    /// A packet goes into as many buffers as it needs, which are published together.
    bool serve_rx(FakeQueue& queue) {
        if (!pending_) pending_ = in_.take();
        if (!pending_) return false;
        wire::virtio_net_hdr header{};
        auto bytes = payload_of(header);
        bytes.insert(bytes.end(), pending_->begin(), pending_->end());
        uint64_t room = 0;
        for (const auto& held : held_) room += held.writable_bytes();
        while (room < bytes.size()) {
            auto chain = queue.take();
            if (!chain) return false;
            room += chain->writable_bytes();
            held_.push_back(std::move(*chain));
        }
        const int lie = lie_about_buffers;
        header.num_buffers = lie >= 0 ? uint16_t(lie) : uint16_t(held_.size());
        std::memcpy(bytes.data(), &header, sizeof header);
        std::span<const std::byte> rest = bytes;
        for (const auto& chain : held_) {
            const uint32_t written = queue.write(chain, rest);
            rest = rest.subspan(written);
            queue.put_element(chain.head, written);
        }
        queue.publish();
        held_.clear();
        pending_.reset();
        return true;
    }
    FakeIommu& iommu_;
    EndpointId endpoint_;
    Wire& out_;
    Wire& in_;
    std::optional<std::vector<std::byte>> pending_;
    std::vector<FakeChain> held_;
};

}  // namespace viommu::guest::test
