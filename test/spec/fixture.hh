// SPDX-License-Identifier: BSD-3-Clause
/// A device and a driver's requests to it: bytes in, bytes out, the way a guest sees the device.
///
/// The comment above each test names the sentences that it proves, by their IDs in
/// doc/conformance.md; devtools/conformance compares the two.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "viommu_device.hh"

namespace viommu::device::spec {

using namespace wire;

inline constexpr uint64_t kPage = 4096;
inline constexpr EndpointId kEndpoint = 0x18;
inline constexpr EndpointId kOther = 0x20;
inline constexpr int kNoStatus = -1;

struct Spec : testing::Test {
    static Config config() {
        Config c;
        c.endpoints = {kEndpoint, kOther};
        c.bypass = false;
        c.input_range = {{0}, {(uint64_t{1} << 40) - 1}};
        c.domain_first = 1;
        c.domain_last = 100;
        c.reserved = {{{{0xfee00000}, {0xfeefffff}}, ReservedRegion::Type::kMsi},
                      {{{0x100000}, {0x10ffff}}, ReservedRegion::Type::kReserved}};
        return c;
    }
    static std::unique_ptr<Device> make(const Config& c = config()) {
        auto d = Device::create(c);
        EXPECT_TRUE(d) << d.error().message;
        return std::move(*d);
    }

    /// Sends the device-readable bytes of `req`; returns the status, or kNoStatus for length 0.
    template <class Req>
    int send(const Req& req, std::size_t readable = offsetof(Req, tail)) {
        std::byte bytes[sizeof req];
        std::memcpy(bytes, &req, sizeof req);
        std::byte reply[4] = {std::byte{0xee}, std::byte{0xee}, std::byte{0xee}, std::byte{0xee}};
        const auto outcome = device->handle({bytes, readable}, reply);
        EXPECT_FALSE(outcome.retry_after_grace);
        finish();
        if (outcome.written == 0) return kNoStatus;
        EXPECT_EQ(outcome.written, sizeof reply);
        for (int i = 1; i < 4; ++i) EXPECT_EQ(reply[i], std::byte{0}) << "tail.reserved";
        return int(reply[0]);
    }
    int attach(DomainId d, EndpointId e = kEndpoint, uint32_t flags = 0, uint8_t reserved = 0) {
        virtio_iommu_req_attach r{};
        r.head.type = VIRTIO_IOMMU_T_ATTACH;
        r.domain = d;
        r.endpoint = e;
        r.flags = flags;
        r.reserved[3] = reserved;
        return send(r);
    }
    int detach(DomainId d, EndpointId e = kEndpoint, uint8_t reserved = 0) {
        virtio_iommu_req_detach r{};
        r.head.type = VIRTIO_IOMMU_T_DETACH;
        r.domain = d;
        r.endpoint = e;
        r.reserved[7] = reserved;
        return send(r);
    }
    int map(uint64_t first, uint64_t last, DomainId d = 1, uint32_t flags = 3,
            uint64_t gpa = 0x7000000) {
        virtio_iommu_req_map r{};
        r.head.type = VIRTIO_IOMMU_T_MAP;
        r.domain = d;
        r.virt_start = first;
        r.virt_end = last;
        r.phys_start = gpa;
        r.flags = flags;
        return send(r);
    }
    int unmap(uint64_t first, uint64_t last, DomainId d = 1, uint8_t reserved = 0) {
        virtio_iommu_req_unmap r{};
        r.head.type = VIRTIO_IOMMU_T_UNMAP;
        r.domain = d;
        r.virt_start = first;
        r.virt_end = last;
        r.reserved[0] = reserved;
        return send(r);
    }
    /// The whole writable part of a PROBE answer, `room` bytes; empty for length 0.
    std::vector<uint8_t> probe(EndpointId e, std::size_t room, uint8_t reserved = 0) {
        virtio_iommu_req_probe r{};
        r.head.type = VIRTIO_IOMMU_T_PROBE;
        r.endpoint = e;
        r.reserved[63] = reserved;
        std::byte bytes[sizeof r];
        std::memcpy(bytes, &r, sizeof r);
        std::vector<uint8_t> reply(room, 0xee);
        const auto outcome = device->handle(bytes, std::as_writable_bytes(std::span(reply)));
        reply.resize(outcome.written);
        return reply;
    }
    virtio_iommu_config read_config() {
        virtio_iommu_config c;
        device->read_config(0, std::as_writable_bytes(std::span(&c, 1)));
        return c;
    }
    uint32_t probe_size() { return read_config().probe_size; }
    void write_bypass(uint8_t value) {
        device->write_config(36, std::as_bytes(std::span(&value, 1)));
        finish();
    }
    xlate::Translation access(uint64_t iova, Access need, EndpointId e = kEndpoint) {
        auto reader = std::move(*xlate::Reader::create(device->table(), device->faults(), e));
        reader.enter();
        const auto t = reader.translate({iova}, 1, need);
        reader.leave();
        return t;
    }
    void finish() {
        auto& table = device->table();
        if (table.dirty()) {
            EXPECT_TRUE(table.grace_over(table.start_grace()));
        }
        EXPECT_EQ(table.self_check(), "");
    }

    std::unique_ptr<Device> device = make();
};

inline constexpr int ok = int(Status::kOk), inval = int(Status::kInval),
                     range = int(Status::kRange), unsupp = int(Status::kUnsupp),
                     noent = int(Status::kNoEnt), nomem = int(Status::kNoMem);

}  // namespace viommu::device::spec
