// SPDX-License-Identifier: BSD-3-Clause
#include "report.hh"

namespace viommu::example {

using namespace guest;

namespace {

constexpr uint8_t kTypes[] = {wire::VIRTIO_IOMMU_T_PROBE, wire::VIRTIO_IOMMU_T_ATTACH,
                              wire::VIRTIO_IOMMU_T_MAP, wire::VIRTIO_IOMMU_T_UNMAP,
                              wire::VIRTIO_IOMMU_T_DETACH};

std::string duration(uint64_t ns) {
    return ns < 10'000 ? fmt::format("{} ns", ns) : fmt::format("{:.1f} us", double(ns) / 1e3);
}

double rate(const Passed& passed) {
    return passed.seconds > 0 ? double(passed.sent) / passed.seconds : 0;
}

std::string rate_text(double packets_per_second) {
    return packets_per_second >= 1e6 ? fmt::format("{:.2f} Mpps", packets_per_second / 1e6)
                                     : fmt::format("{:.1f} kpps", packets_per_second / 1e3);
}

std::string reserved_text(const std::vector<ReservedRegion>& regions) {
    std::string text;
    for (const auto& r : regions)
        text += fmt::format("{}{} [{:#x}, {:#x}]", text.empty() ? "" : ", ",
                            r.subtype == wire::VIRTIO_IOMMU_RESV_MEM_T_MSI ? "MSI" : "RESERVED",
                            r.start, r.end);
    return text.empty() ? "none" : text;
}

}  // namespace

std::string as_table(Guest& guest, const Report& report) {
    std::string out = fmt::format("{:<14} {:>8}  {}\n", "endpoint", "domain", "reserved memory");
    for (size_t i = 0; i < guest.ports(); ++i)
        out += fmt::format("{:<14} {:>8}  {}\n", format_bdf(guest.endpoint(i)), guest.domain(i),
                           reserved_text(guest.probed(i).reserved));
    out += fmt::format("\n{:<14} {:>8} {:>11} {:>11}\n", "request", "sent", "median", "p99");
    for (const uint8_t type : kTypes) {
        const auto& trips = guest.iommu().round_trips(type);
        out += fmt::format("{:<14} {:>8} {:>11} {:>11}\n", request_type_name(type), trips.count(),
                           duration(trips.quantile_ns(0.5)), duration(trips.quantile_ns(0.99)));
    }
    const auto& p = report.passed;
    out += fmt::format("\n{:<14} {:>8} {:>11} {:>11} {:>9} {:>12}\n", "packets", "sent", "received",
                       "verified", "seconds", "rate");
    out += fmt::format("{:<14} {:>8} {:>11} {:>11} {:>9.3f} {:>12}\n",
                       fmt::format("of {} bytes", report.packet_bytes), p.sent, p.received,
                       p.verified, p.seconds, rate_text(rate(p)));
    out +=
        fmt::format("\n{:<14} {:>8}  last: endpoint {}, address {}, no mapping to read\n", "faults",
                    report.faults, format_bdf(report.fault.endpoint), report.fault.address);
    return out;
}

std::string as_json(Guest& guest, const Report& report) {
    std::string requests;
    for (const uint8_t type : kTypes) {
        const auto& trips = guest.iommu().round_trips(type);
        requests += fmt::format(R"({}"{}":{{"sent":{},"median_ns":{},"p99_ns":{}}})",
                                requests.empty() ? "" : ",", request_type_name(type), trips.count(),
                                trips.quantile_ns(0.5), trips.quantile_ns(0.99));
    }
    const auto& p = report.passed;
    return fmt::format(
        R"({{"requests":{{{}}},"packets":{{"bytes":{},"sent":{},"received":{},"verified":{},)"
        R"("seconds":{:.6f},"per_second":{:.0f}}},"faults":{},"ok":true}})"
        "\n",
        requests, report.packet_bytes, p.sent, p.received, p.verified, p.seconds, rate(p),
        report.faults);
}

}  // namespace viommu::example
