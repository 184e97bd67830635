// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: wire::decode() against a reading of the bytes by the specification's offsets
/// (virtio 1.3, 5.13.6), which shares no structure with lib/wire.
#include "input.hh"
#include "viommu_wire.hh"

namespace viommu::fuzz {
namespace {

using namespace wire;

struct Bytes {
    const uint8_t* at;
    size_t size;

    uint64_t number(size_t offset, size_t bytes) const {
        uint64_t value = 0;
        for (size_t i = bytes; i-- > 0;) value = value << 8 | at[offset + i];
        return value;
    }
    uint32_t u32(size_t offset) const { return uint32_t(number(offset, 4)); }
    uint64_t u64(size_t offset) const { return number(offset, 8); }
    bool zero(size_t offset, size_t bytes) const { return number(offset, bytes) == 0; }
};

template <class T>
const T& as(const Request& r) {
    require(std::holds_alternative<T>(r), "decoded as another request, index {}", r.index());
    return std::get<T>(r);
}

void check(const Bytes& b, const std::optional<Request>& r) {
    // Device-readable bytes by type 1 to 5: 5.13.6.3 to 5.13.6.7.
    constexpr size_t kReadable[] = {0, 20, 20, 36, 28, 72};
    const unsigned type = b.size < 4 ? 0 : b.at[0];
    const bool readable = type >= 1 && type <= 5 && b.size >= kReadable[type];
    require(r.has_value() == readable, "type {} of {} bytes: decoded {}", type, b.size,
            r.has_value());
    if (!r) return;
    switch (type) {
        case 1: {
            const auto& a = as<AttachRequest>(*r);
            require(a.domain == b.u32(4) && a.endpoint == b.u32(8) && a.flags == b.u32(12) &&
                        a.reserved_is_zero == b.zero(16, 4),
                    "ATTACH has other fields than its bytes");
            break;
        }
        case 2: {
            const auto& d = as<DetachRequest>(*r);
            require(d.domain == b.u32(4) && d.endpoint == b.u32(8),
                    "DETACH has other fields than its bytes");
            break;
        }
        case 3: {
            const auto& m = as<MapRequest>(*r);
            require(m.domain == b.u32(4) && m.first.value == b.u64(8) &&
                        m.last.value == b.u64(16) && m.gpa.value == b.u64(24) &&
                        m.flags == b.u32(32),
                    "MAP has other fields than its bytes");
            break;
        }
        case 4: {
            const auto& u = as<UnmapRequest>(*r);
            require(u.domain == b.u32(4) && u.first.value == b.u64(8) &&
                        u.last.value == b.u64(16) && u.reserved_is_zero == b.zero(24, 4),
                    "UNMAP has other fields than its bytes");
            break;
        }
        case 5:
            require(as<ProbeRequest>(*r).endpoint == b.u32(4),
                    "PROBE has other fields than its bytes");
            break;
    }
}

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace viommu;
    const auto bytes = std::as_bytes(std::span(data, size));
    fuzz::check({data, size}, wire::decode(bytes));
    // What a caller copies at most decides: the bytes behind it change nothing but truncation.
    const size_t head = std::min(size, wire::kMaxRequestBytes);
    fuzz::check({data, head}, wire::decode(bytes.first(head)));
    return 0;
}
