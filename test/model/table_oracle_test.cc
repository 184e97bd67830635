// SPDX-License-Identifier: BSD-3-Clause
/// The table and its reader against a brute-force oracle: random ATTACH, DETACH, MAP, UNMAP, bypass
/// and reset; after each step some translations, asked of both. Prints its seed; VIOMMU_SEED repeats
/// a run, VIOMMU_STEPS makes it longer.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "oracle.hh"
#include "viommu_xlate.hh"

namespace viommu {
namespace {

using test::Oracle;
using xlate::Translation;

struct Shape {
    const char* name;
    unsigned granule_lg2;
    IovaRange input;
};

struct TableOracle : testing::TestWithParam<Shape> {};

uint64_t env(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

TEST_P(TableOracle, random_operations_agree) {
    const uint64_t seed = env("VIOMMU_SEED", std::random_device{}());
    const uint64_t steps = env("VIOMMU_STEPS", 100000);
    RecordProperty("seed", std::to_string(seed));
    std::printf("seed %lu (VIOMMU_SEED=%lu repeats it)\n", seed, seed);
    std::mt19937_64 rng(seed);
    const auto below = [&](uint64_t n) { return rng() % n; };

    const Shape shape = GetParam();
    const uint64_t granule = uint64_t{1} << shape.granule_lg2;
    auto table = std::move(*table::Table::create({.granule_lg2 = shape.granule_lg2,
                                                  .input = shape.input,
                                                  .max_endpoints = 3,
                                                  .max_domains = 4}));
    xlate::FaultQueue faults;
    Oracle oracle{granule, shape.input, false, {}, {}};
    std::vector<xlate::Reader> readers;
    // Addresses cluster around a few bases, so that mappings meet, and around level boundaries.
    const uint64_t extent = shape.input.extent() / granule;
    std::vector<uint64_t> bases = {0, extent};
    for (int i = 0; i < 4; ++i) bases.push_back(extent == ~uint64_t{0} ? rng() : below(extent + 1));
    for (unsigned level : {1, 2})
        bases.push_back((bases[2] >> (9 * level) << (9 * level)));
    const auto address = [&] {
        const uint64_t page = bases[below(bases.size())] + below(40) - 20;
        return shape.input.first.value + page * granule;
    };
    const auto length = [&]() -> uint64_t {
        switch (below(8)) {
            case 0: return granule * 512;
            case 1: return granule * (1 + below(1200));
            case 2: return granule * 512 * (1 + below(600));
            default: return granule * (1 + below(8));
        }
    };

    for (EndpointId e : {1, 2, 3}) {
        // 1 and 3 may have the same regions, 2 others; not aligned to anything.
        auto& regions = oracle.reserved[e];
        for (unsigned i = 0; e != 3 && i < e; ++i) {
            const uint64_t at = address() + below(granule);
            if (at + 3 * granule < at) continue;
            regions.push_back({{{at}, {at + below(3 * granule)}}, below(2) == 0});
        }
        if (e == 3) regions = oracle.reserved[1];
        ASSERT_TRUE(table->add_endpoint(e, regions));
        oracle.endpoints[e] = std::nullopt;
        readers.push_back(std::move(*xlate::Reader::create(*table, faults, e)));
    }

    uint64_t ok = 0;
    uint64_t unsupp = 0;
    uint64_t most = 0;  // mappings at a time
    for (uint64_t step = 0; step < steps; ++step) {
        const EndpointId e = EndpointId(below(5) == 0 ? below(5) : 1 + below(3));
        const DomainId d = DomainId(below(3));
        const uint64_t first = address();
        const uint64_t last = first + length() - 1;
        Status got = Status::kOk;
        Status want = Status::kOk;
        const uint64_t what = step < 20 ? 0 : below(1000);
        if (what < 4) {
            const bool as_bypass = below(8) == 0;
            got = table->attach(e, d, as_bypass);
            want = oracle.attach(e, d, as_bypass);
        } else if (what < 5) {
            got = table->detach(e, d);
            want = oracle.detach(e, d);
        } else if (what < 600) {
            if (last < first) continue;
            const uint64_t skew = below(30) == 0 ? 1 : 0;
            const uint64_t gpa = granule * below(1 << 20) + (below(30) == 0 ? 8 : 0);
            const auto rights = Access(below(8));
            got = table->map(d, {{first + skew}, {last}}, {gpa}, rights);
            want = oracle.map(d, first + skew, last, gpa, rights);
        } else if (what < 998) {
            uint64_t from = first;
            uint64_t to = last;
            // Half of the time exactly one existing mapping, or from one to another.
            if (const auto it = oracle.domains.find(d);
                it != oracle.domains.end() && !it->second.mappings.empty() && below(2) == 0) {
                const auto& all = it->second.mappings;
                from = all[below(all.size())].first;
                to = below(2) ? all[below(all.size())].last : oracle.covering(it->second, from)->last;
            }
            if (to < from) std::swap(from, to);
            got = table->unmap(d, {{from}, {to}});
            want = oracle.unmap(d, from, to);
        } else if (below(4) != 0) {
            oracle.bypass = !oracle.bypass;
            table->set_bypass(oracle.bypass);
        } else {
            table->reset();
            oracle.reset();
        }
        ASSERT_EQ(got, want) << "step " << step;
        ok += got == Status::kOk;
        unsupp += got == Status::kUnsupp;
        most = std::max(most, table->usage().mappings);
        if (below(3) == 0) {
            ASSERT_TRUE(table->grace_over(table->start_grace()));
        }
        if (below(200) == 0) {
            ASSERT_EQ(table->self_check(), "") << "step " << step;
        }

        for (auto& reader : readers) {
            reader.enter();
            for (int i = 0; i < 3; ++i) {
                const uint64_t iova = address() + below(granule);
                const uint64_t bytes = 1 + below(below(2) ? 64 : granule * 700);
                if (iova + bytes < iova) continue;
                const auto need = Access(1 + below(3));
                const Translation t = reader.translate({iova}, bytes, need);
                const auto [to, n] = oracle.translate(reader.endpoint(), iova, bytes, need);
                ASSERT_EQ(t.bytes(), n) << "step " << step << " iova " << iova;
                ASSERT_EQ(t ? t.gpa().value : uint64_t(t.fault()), to) << "step " << step;
            }
            reader.leave();
        }
    }
    EXPECT_GT(ok, steps / 10) << "the test asks too few questions that succeed";
    EXPECT_GT(most, 5u) << "the test never fills the table";
    std::printf("%lu ok, %lu unsupp\n", ok, unsupp);
    table->reset();
    ASSERT_TRUE(table->grace_over(table->start_grace()));
    EXPECT_EQ(table->usage().nodes_used, 0u) << "nodes leaked";
    EXPECT_EQ(table->self_check(), "");
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, TableOracle,
    testing::Values(Shape{"aperture", 12, {{0x1000000}, {0x3fffffff}}},
                    Shape{"bits48", 12, {{0}, {(uint64_t{1} << 48) - 1}}},
                    Shape{"bits64", 12, {{0}, {~uint64_t{0}}}},
                    Shape{"bits39", 12, {{0}, {(uint64_t{1} << 39) - 1}}},
                    Shape{"bits57", 12, {{0}, {(uint64_t{1} << 57) - 1}}},
                    Shape{"granule16k", 14, {{0}, {~uint64_t{0}}}},
                    Shape{"granule64k", 16, {{0}, {(uint64_t{1} << 40) - 1}}},
                    Shape{"granule64k_bits64", 16, {{0}, {~uint64_t{0}}}},
                    Shape{"granule2m", 21, {{0}, {(uint64_t{1} << 52) - 1}}},
                    Shape{"granule2m_bits64", 21, {{0}, {~uint64_t{0}}}}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace viommu
