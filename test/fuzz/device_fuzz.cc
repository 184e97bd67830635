// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: a device against DeviceOracle. The input is a shape and then steps: requests
/// (fields from small sets around what matters: granules, nodes' and ranges' ends, reserved
/// regions), configuration space, reset, translations, readers' sections, grace periods, faults.
///
/// Required: status and all bytes of each answer; nothing changes on an error; translations with
/// rights; a section delays what takes from it, and sees nothing that never was; every invariant of
/// the table (self_check()); after a reset nothing is left.
#include "device_oracle.hh"

namespace viommu::fuzz {
namespace {

using xlate::Translation;

struct Shape {
    unsigned granule_lg2;
    IovaRange input;
    uint64_t arena_bytes;
    uint32_t max_domains;
    uint64_t max_mappings;
};
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr Shape kShapes[] = {
    {12, {{0}, {(uint64_t{1} << 48) - 1}}, 4 * kMiB, 4, 1000},
    {12, {{0x1000000}, {0x3fffffff}}, 4 * kMiB, 2, 1000},
    {12, {{0}, {~uint64_t{0}}}, 4 * kMiB, 4, 1000},
    {16, {{0}, {(uint64_t{1} << 40) - 1}}, 4 * kMiB, 4, 1000},
    {12, {{0}, {(uint64_t{1} << 40) - 1}}, 4096 * 20, 2, 1000},  // 17 nodes
    {12, {{0}, {(uint64_t{1} << 30) - 1}}, 4 * kMiB, 4, 3},
};
constexpr EndpointId kEndpoints[] = {0x8, 0x10, 0xffffffff};

device::Config config_of(Input& in) {
    const Shape& s = kShapes[in.below(std::size(kShapes))];
    device::Config c;
    c.page_size_mask = -(uint64_t{1} << s.granule_lg2);
    c.input_range = s.input;
    c.domain_first = 1;
    c.domain_last = 6;
    const uint8_t bypass = in.take();
    c.bypass = bypass % 2 != 0;
    c.legacy_bypass = bypass >= 224;
    c.endpoints.assign(std::begin(kEndpoints), std::end(kEndpoints));
    c.reserved = {{{{0xfee00000}, {0xfeefffff}}, device::ReservedRegion::Type::kMsi},
                  {{{0x2000000}, {0x200ffff}}, device::ReservedRegion::Type::kReserved}};
    c.endpoint_reserved[0x10] = {{{{0x40000000}, {0x4000ffff}}}};
    c.max_domains = s.max_domains;
    c.max_mappings = s.max_mappings;
    c.arena_bytes = s.arena_bytes;
    c.faults_per_second = 1u << 30;  // the limit depends on the clock
    return c;
}

/// One endpoint's reader. While it is in a section, `seen` has every state since it entered, of
/// what it was attached to then: a section never sees a re-ATTACH or DETACH of its endpoint, but
/// does see what is mapped in the domain that it began with, as long as that exists.
struct Eye {
    xlate::Reader reader;
    bool inside = false;
    bool gone = false;  // the domain that it began with; another may have its ID since
    std::vector<test::Oracle> seen{};

    void enter(const test::Oracle& now) {
        reader.enter();
        inside = true;
        seen = {now};
    }
    void remember(const test::Oracle& now) {
        if (!inside || gone) return;
        const auto attached = seen.front().endpoints.at(reader.endpoint());
        gone = attached && !now.domains.contains(*attached);
        if (gone) return;
        seen.push_back(now);
        seen.back().endpoints[reader.endpoint()] = attached;
        seen.back().bypass = seen.front().bypass;
    }
    void leave() {
        if (inside) reader.leave();
        inside = gone = false;
        seen.clear();
    }
};

class Session {
  public:
    explicit Session(Input in)
        : in_(in), config_(config_of(in_)), oracle_(config_), granule_(oracle_.table.granule) {
        auto device = device::Device::create(config_);
        require(device.has_value(), "no device: {}", device ? "" : device.error().message);
        device_ = std::move(*device);
        free_at_start_ = table().usage().nodes_free;
        for (const EndpointId e : kEndpoints)
            eyes_.push_back({std::move(*xlate::Reader::create(table(), device_->faults(), e))});
    }

    void run() {
        for (unsigned step = 0; !in_.empty() && step < 300; ++step) {
            one_step();
            if (step % 16 == 15) check_table();
        }
        finish();
    }

  private:
    table::Table& table() { return device_->table(); }

    void one_step() {
        switch (in_.below(16)) {
            case 0: return send(attach());
            case 1: return send(detach());
            case 2:
            case 3:
            case 4: return send(map());
            case 5:
            case 6: return send(unmap());
            case 7: return send(probe());
            case 8: return send(in_.bytes(in_.take() % 80));
            case 9:
            case 10: return translate();
            case 11: return config_space();
            case 12: return section();
            case 13: return grace();
            case 14: return fault();
            case 15:
                if (in_.below(4) == 0) reset();
        }
    }

    // --- fields ----------------------------------------------------------------------------------

    EndpointId endpoint() {
        return in_.one_of<EndpointId>({0x8, 0x10, 0xffffffff, 0x8, 0x10, 0x9});
    }
    DomainId domain() { return in_.one_of<DomainId>({1, 2, 3, 6, 1, 2, 0, 7}); }

    /// A page near something that matters.
    uint64_t address() {
        const uint64_t first = config_.input_range.first.value;
        const uint64_t bases[] = {first,
                                  config_.input_range.last.value + 1,
                                  first + 512 * granule_,
                                  first + 512 * 512 * granule_,
                                  0x40000000,
                                  0x2000000,
                                  0x2010000,
                                  0xfee00000,
                                  uint64_t{1} << 39,
                                  0};
        const uint64_t base = bases[in_.below(std::size(bases))];
        return base + uint64_t(int64_t(int8_t(in_.take()))) * granule_;
    }
    uint64_t length() {
        const uint8_t b = in_.take();
        if (b < 128) return granule_ * (1 + b % 16);
        if (b < 192) return granule_ * 512 * (1 + b % 3);
        if (b < 224) return granule_ * (1 + b % 32 * 37);
        if (b < 250) return granule_ * 512 * 512;
        return uint64_t{0} - granule_ * (b - 249);  // nearly everything
    }
    /// 1, or rarely something else: fields that should be plain are not always.
    uint64_t odd(uint64_t plain, std::initializer_list<uint64_t> others) {
        const uint8_t b = in_.take();
        return b < 232 ? plain : others.begin()[b % others.size()];
    }

    Bytes request(uint8_t type) {
        Bytes r;
        append(r, type, 1);
        append(r, odd(0, {1, 0xffffff}), 3);
        return r;
    }
    Bytes attach() {
        Bytes r = request(1);
        append(r, domain(), 4);
        append(r, endpoint(), 4);
        append(r, odd(0, {1, 1, 1, 2, 0x80000000}), 4);
        append(r, odd(0, {1, 0x80000000}), 4);
        return r;
    }
    Bytes detach() {
        Bytes r = request(2);
        append(r, domain(), 4);
        append(r, endpoint(), 4);
        append(r, odd(0, {~uint64_t{0}}), 8);
        return r;
    }
    Bytes map() {
        Bytes r = request(3);
        append(r, domain(), 4);
        const uint64_t first = address() + odd(0, {1, granule_ / 2});
        append(r, first, 8);
        append(r, first + length() - odd(1, {0, 2, 0x800}), 8);
        // Near the addresses of others, so that runs continue, or so that large leaves do not fit.
        append(r, in_.one_of({first, address(), address()}) + odd(0, {8, 0xffffffff00000000}), 8);
        append(r, in_.take() % 8 + odd(0, {8, 0x80000000}), 4);
        return r;
    }
    Bytes unmap() {
        Bytes r = request(4);
        const DomainId d = domain();
        append(r, d, 4);
        uint64_t first = address(), last = first + length() - 1;
        const auto found = oracle_.table.domains.find(d);
        const uint8_t which = in_.take();
        if (which % 4 != 0 && found != oracle_.table.domains.end() &&
            !found->second.mappings.empty()) {  // exactly what is there
            const auto& all = found->second.mappings;
            first = all[which / 4 % all.size()].first;
            last = which % 4 == 1 ? all[which / 8 % all.size()].last
                                  : oracle_.table.covering(found->second, first)->last;
        }
        append(r, first, 8);
        append(r, last + odd(0, {1, granule_, ~uint64_t{0}}), 8);
        append(r, odd(0, {1}), 4);
        return r;
    }
    Bytes probe() {
        Bytes r = request(5);
        append(r, endpoint(), 4);
        r.resize(72 - odd(0, {1, 64}));
        return r;
    }

    // --- steps -----------------------------------------------------------------------------------

    void send(Bytes request) {
        const size_t probe_room = oracle_.probe_size() + 4;
        size_t room = in_.one_of<size_t>({probe_room, probe_room, probe_room, 4, 100, 3, 0,
                                          probe_room - 1, probe_room - 24, 5, probe_room});
        room =
            std::max(room, !request.empty() && request[0] != std::byte{5} && room > 3 ? 4 : room);
        const auto before = table().usage();
        const test::Oracle state = oracle_.table;
        Expected expected = oracle_.handle(request, room);

        Bytes reply(room, std::byte{0xee});
        auto outcome = device_->handle(request, reply);
        if (outcome.retry_after_grace) {
            require(before.trees_waiting != 0 && outcome.written == 0, "a retry helps nobody");
            grace();
            outcome = device_->handle(request, reply);
            require(!outcome.retry_after_grace, "a retry after the grace period");
        }
        const bool no_memory = outcome.written == 4 && reply[0] == std::byte{uint8_t(8)};
        if (no_memory && expected.may_lack_nodes && expected.reply[0] == std::byte{0}) {
            // The oracle has no arena. It must have been short, by the most that this can take.
            uint64_t most = 1;
            for (uint64_t n = expected.pages; n > 0; n /= 512) most += n / 512 + 2;
            require(table().usage().nodes_free < most + 6, "NOMEM with {} nodes free of {} needed",
                    table().usage().nodes_free, most);
            oracle_.table = state;
            expected = {{expected.reply}, false, false, 0};
            DeviceOracle::fail(expected);
        }
        require(outcome.written == expected.reply.size(), "request {} of {} bytes: {} written",
                request.empty() ? 0 : int(request[0]), request.size(), outcome.written);
        for (size_t i = 0; i < room; ++i) {
            if (i >= expected.reply.size()) break;
            require(reply[i] == expected.reply[i],
                    "request {}: byte {} of the answer is {}, not {}", int(request[0]), i,
                    int(reply[i]), int(expected.reply[i]));
        }
        if (expected.takes_away) require(table().dirty(), "readers lose something, unannounced");
        const auto after = table().usage();
        require(after.mappings == oracle_.mappings(), "{} mappings", after.mappings);
        require(after.domains == oracle_.table.domains.size(), "{} domains", after.domains);
        for (Eye& eye : eyes_) eye.remember(oracle_.table);
    }

    void translate() {
        Eye& eye = eyes_[in_.below(std::size(kEndpoints))];
        const uint64_t iova = address() + (in_.one_in(4) ? in_.take<uint16_t>() % granule_ : 0);
        uint64_t bytes = in_.one_in(2) ? length() : 1 + in_.take() % 64;
        if (iova + bytes - 1 < iova) bytes = ~iova + 1;  // to the end of the space
        if (bytes == 0) bytes = 1;
        const auto need = Access(1 + in_.below(7));
        const EndpointId e = eye.reader.endpoint();
        if (eye.inside) {
            const Translation t = eye.reader.translate({iova}, bytes, need);
            return check_seen(eye, t, iova, bytes, need);
        }
        eye.reader.enter();
        const Translation t = eye.reader.translate({iova}, bytes, need);
        eye.reader.leave();
        const auto [to, n] = oracle_.table.translate(e, iova, bytes, need);
        require(t.bytes() == std::min(n, Translation::kMaxBytes), "{:#x} leads to {} bytes, not {}",
                iova, t.bytes(), n);
        require((t ? t.gpa().value : uint64_t(t.fault())) == to, "{:#x} leads elsewhere", iova);
        if (t)
            require(allows(t.rights(), need & Access::kReadWrite), "{:#x} allows less than asked",
                    iova);
    }

    /// In a section that things have changed under: each page leads to where it led at some time
    /// since the section began. Old states are all right, invented ones are not.
    void check_seen(const Eye& eye, const Translation& t, uint64_t iova, uint64_t bytes,
                    Access need) {
        require(t.bytes() <= bytes, "{} bytes of {}", t.bytes(), bytes);
        uint64_t checked = 0;
        for (unsigned pages = 0; checked < t.bytes() && pages < 64; ++pages) {
            const bool known = std::ranges::any_of(eye.seen, [&](const test::Oracle& o) {
                const auto [to, n] = o.translate(eye.reader.endpoint(), iova + checked, 1, need);
                return n == 1 && to == t.gpa().value + checked;
            });
            require(known, "{:#x} leads where it never did", iova + checked);
            checked += granule_ - (iova + checked) % granule_;
        }
    }

    void section() {
        Eye& eye = eyes_[in_.below(std::size(kEndpoints))];
        eye.inside ? eye.leave() : eye.enter(oracle_.table);
    }

    /// Begin one; it must last exactly as long as a section that was open when it began.
    void grace() {
        const auto token = table().start_grace();
        require(!table().dirty(), "dirty after the start of a grace period");
        for (Eye& eye : eyes_) {
            if (!eye.inside) continue;
            require(!table().grace_over(token), "a grace period ends inside a section");
            eye.leave();
        }
        require(table().grace_over(token), "a grace period outlasts all sections");
        require(table().usage().trees_waiting == 0, "nodes go on waiting");
    }

    void config_space() {
        const test::Oracle before = oracle_.table;
        const uint8_t what = in_.take();
        if (what % 2 != 0) {
            const uint32_t offset = in_.one_of<uint32_t>({36, 35, 37, 0, 32, 39, 40, ~0u});
            const Bytes bytes = in_.bytes(in_.below(8));
            oracle_.write_config(offset, bytes);
            require(device_->would_change(offset, bytes) == (before.bypass != oracle_.table.bypass),
                    "would_change()");
            device_->write_config(offset, bytes);
        } else if (what >= 208) {
            const uint64_t features = uint64_t{in_.take()};
            oracle_.features_acked(features);
            device_->features_acked(features);
        } else if (what >= 160) {  // as vhost::IommuPort does when a frontend comes
            const bool comes = what % 4 != 0;
            comes ? oracle_.connected() : oracle_.resumed();
            comes ? device_->connected() : device_->resumed();
        }
        const bool concerns = std::ranges::any_of(
            before.endpoints, [](const auto& e) { return !e.second.has_value(); });
        if (concerns && before.bypass != oracle_.table.bypass)
            require(table().dirty(), "readers lose something, unannounced");
        for (Eye& eye : eyes_) eye.remember(oracle_.table);
        Bytes want = oracle_.config_space();
        want.resize(512);
        const uint32_t offset = in_.below(64);
        Bytes got(in_.take(), std::byte{0xee});
        device_->read_config(offset, got);
        require(std::equal(got.begin(), got.end(), want.begin() + offset), "configuration space");
    }

    void fault() {
        const Eye& eye = eyes_[in_.below(std::size(kEndpoints))];
        const uint64_t iova = address();
        const auto access = Access(in_.below(8));
        const auto reason = xlate::FaultReason(in_.below(3));
        const_cast<Eye&>(eye).reader.report({iova}, access, reason);
        wire::virtio_iommu_fault f;
        require(device_->next_fault(f), "a fault is lost");
        require(f.reason == uint8_t(reason) && f.endpoint == eye.reader.endpoint() &&
                    f.address == iova && f.flags == (uint32_t(access) & 3u) + 0x100,
                "another fault");
        require(!device_->next_fault(f), "a fault too many");
    }

    void reset() {
        device_->reset();
        oracle_.reset();
        for (Eye& eye : eyes_) eye.remember(oracle_.table);
    }

    void check_table() {
        const std::string wrong = table().self_check();
        require(wrong.empty(), "self_check: {}", wrong);
    }

    void finish() {
        check_table();
        reset();
        grace();
        check_table();
        const auto left = table().usage();
        require(left.nodes_used == 0 && left.nodes_free == free_at_start_ && left.domains == 0 &&
                    left.mappings == 0,
                "{} nodes, {} domains, {} mappings are left after a reset", left.nodes_used,
                left.domains, left.mappings);
    }

    Input in_;
    const device::Config config_;
    DeviceOracle oracle_;
    const uint64_t granule_;
    std::unique_ptr<device::Device> device_;
    uint64_t free_at_start_ = 0;
    std::vector<Eye> eyes_;
};

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    viommu::fuzz::Session(viommu::fuzz::Input(data, size)).run();
    return 0;
}
