// SPDX-License-Identifier: BSD-3-Clause
/// The C ABI over share::Client and xlate::Reader: nothing but the change of types, and no exception
/// gets out.
#pragma GCC visibility push(default)
#include "viommu.h"
#pragma GCC visibility pop

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <string_view>

#include "viommu_share.hh"

using viommu::Access;
using viommu::EndpointId;
using viommu::Iova;
using viommu::share::Client;
using viommu::xlate::FaultReason;
using viommu::xlate::Lookup;
using viommu::xlate::Reader;
using viommu::xlate::Translation;

/// Readers hold it, too: closing the connection first is an order that a C program may choose.
struct viommu_client {
    std::shared_ptr<Client> client;
};
struct viommu_reader {
    std::shared_ptr<Client> client;
    Reader reader;
};

namespace {

// The header's structures are ours by another name, so bursts go through as they are.
static_assert(sizeof(viommu_lookup) == 16 && sizeof(Lookup) == 16);
static_assert(offsetof(Lookup, iova) == offsetof(viommu_lookup, iova) &&
              offsetof(Lookup, bytes) == offsetof(viommu_lookup, bytes));
static_assert(sizeof(viommu_run) == 16 && sizeof(Translation) == 16);
static_assert([] {
    const auto run = std::bit_cast<viommu_run>(
        Translation::to({0x1234567890}, 0x55, Access::kRead | Access::kMmio));
    return run.gpa == 0x1234567890 && (run.length & ((uint64_t{1} << 61) - 1)) == 0x55 &&
           run.length >> 61 == (VIOMMU_READ | VIOMMU_MMIO);
}());
static_assert([] {
    const auto run = std::bit_cast<viommu_run>(Translation::faulted(FaultReason::kMapping));
    return run.gpa == VIOMMU_FAULT_MAPPING && run.length == 0;
}());
static_assert(VIOMMU_READ == int(Access::kRead) && VIOMMU_WRITE == int(Access::kWrite) &&
              VIOMMU_MMIO == int(Access::kMmio));
static_assert(VIOMMU_FAULT_DOMAIN == int(FaultReason::kDomain));

/// Of the last failure in this thread. A place of fixed size, so that telling of a failure cannot
/// fail.
thread_local char error_text[512] = "no error";

void set_error(std::string_view text) noexcept {
    const size_t n = std::min(text.size(), sizeof error_text - 1);
    std::copy_n(text.data(), n, error_text);
    error_text[n] = 0;
}

/// f(), which gives a pointer, or null when it throws: no memory, in practice.
template <class F>
auto guarded(F&& f) noexcept -> decltype(f()) {
    try {
        return f();
    } catch (const std::exception& e) {
        set_error(e.what());
    } catch (...) {
        set_error("an unknown exception");
    }
    return nullptr;
}

/// What a device can do; other bits, which a later version may have, are not asked for.
Access asked(unsigned access) noexcept { return Access(access & (VIOMMU_READ | VIOMMU_WRITE)); }

}  // namespace

viommu_client* viommu_open(const char* path, unsigned timeout_ms) {
    return guarded([&]() -> viommu_client* {
        if (path == nullptr) {
            set_error("viommu_open: no path: give it the guest's `readers` socket");
            return nullptr;
        }
        auto client = Client::connect(path, std::chrono::milliseconds(timeout_ms));
        if (!client) {
            set_error(client.error().message);
            return nullptr;
        }
        return new viommu_client{std::make_shared<Client>(std::move(*client))};
    });
}

void viommu_close(viommu_client* v) { delete v; }

const char* viommu_error(void) { return error_text; }

const char* viommu_guest(const viommu_client* v) { return v->client->guest().c_str(); }

int viommu_connected(const viommu_client* v) { return v->client->connected() ? 1 : 0; }

uint64_t viommu_lost_faults(const viommu_client* v) { return v->client->lost_faults(); }

viommu_reader* viommu_reader_create(viommu_client* v, uint32_t endpoint) {
    return guarded([&]() -> viommu_reader* {
        auto reader = v->client->reader(EndpointId{endpoint});
        if (!reader) {
            set_error(reader.error().message);
            return nullptr;
        }
        return new viommu_reader{v->client, std::move(*reader)};
    });
}

void viommu_reader_destroy(viommu_reader* r) { delete r; }

void viommu_enter(viommu_reader* r) { r->reader.enter(); }

void viommu_leave(viommu_reader* r) { r->reader.leave(); }

uint64_t viommu_generation(const viommu_reader* r) { return r->reader.generation(); }

viommu_run viommu_translate(viommu_reader* r, uint64_t iova, uint64_t bytes, unsigned access) {
    return std::bit_cast<viommu_run>(r->reader.translate(Iova{iova}, bytes, asked(access)));
}

unsigned viommu_translate_burst(viommu_reader* r, const viommu_lookup* in, viommu_run* out,
                                unsigned n, unsigned access) {
    // The caller's memory is used as ours; the translation unit that wrote it is not this one.
    return r->reader.translate_burst({reinterpret_cast<const Lookup*>(in), n},
                                     {reinterpret_cast<Translation*>(out), n}, asked(access));
}

void viommu_report(viommu_reader* r, uint64_t iova, unsigned access, unsigned fault) {
    const auto why = fault <= VIOMMU_FAULT_MAPPING ? FaultReason(fault) : FaultReason::kUnknown;
    r->reader.report(Iova{iova}, asked(access), why);
}
