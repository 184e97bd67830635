// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: the command line of `dpdk-viommu`, one argument per line of the input, and the VIOT
/// that `dpdk-viommu viot` would write, read back by an independent reader. An input that begins
/// with a zero byte is a list of endpoint IDs instead, to get at tables that are too long to type.
#include <set>
#include <string>

#include "app/viommu/arguments.hh"
#include "lib/viot/viommu_viot.hh"
#include "viot_check.hh"

namespace viommu::fuzz {
namespace {

void check_table(EndpointId iommu, const std::vector<EndpointId>& endpoints) {
    const std::set<EndpointId> distinct(endpoints.begin(), endpoints.end());
    const auto table = viot::build_table(iommu, endpoints);
    if (distinct.empty() || distinct.size() != endpoints.size() || distinct.contains(iommu)) {
        require(!table, "a VIOT of nothing, of one endpoint twice, or of the IOMMU itself");
        require(!table.error().message.empty(), "an error without a message");
        return;
    }
    require(table.has_value(), "no VIOT: {}", table ? "" : table.error().message);
    check_viot(*table, iommu, endpoints);
    require(viot::body_of(*table).size() + viot::kAcpiHeaderBytes == table->size(),
            "the body is not what follows the header");
}

void check_ids(Input in) {
    in.take();
    const auto id = [&] { return EndpointId(in.take<uint16_t>() | uint32_t{in.take()} % 3 << 16); };
    const EndpointId iommu = id();
    std::vector<EndpointId> endpoints;
    while (!in.empty() && endpoints.size() < 4096) {
        const EndpointId first = id();
        for (unsigned n = in.take() % 16; n < 16; ++n)
            endpoints.push_back(first + n);  // runs, so that nodes hold several
    }
    for (const EndpointId e : endpoints) {
        const auto parsed = parse_bdf(format_bdf(e));
        require(parsed && *parsed == e, "{} does not parse to itself", format_bdf(e));
    }
    check_table(iommu, endpoints);
}

void check_arguments(Input in) {
    std::vector<std::string> words = {"dpdk-viommu", ""};
    for (const std::byte b : in.bytes(4096)) {
        if (char(b) == '\n')
            words.emplace_back();
        else if (char(b) != 0)  // an argument cannot hold it
            words.back() += char(b);
    }
    std::vector<const char*> argv;
    for (const auto& w : words) argv.push_back(w.c_str());
    const auto command = app::parse_arguments(int(argv.size()), argv.data());
    if (const auto* print = std::get_if<app::PrintCommand>(&command))
        require(!print->text.empty(), "nothing is said, exit status {}", print->exit_status);
    if (const auto* viot = std::get_if<app::ViotCommand>(&command))
        check_table(viot->iommu, viot->endpoints);
}

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const viommu::fuzz::Input in(data, size);
    if (size > 0 && data[0] == 0)
        viommu::fuzz::check_ids(in);
    else
        viommu::fuzz::check_arguments(in);
    return 0;
}
