// SPDX-License-Identifier: BSD-3-Clause
#include <array>
#include <vector>

#include "bench_table.hh"
#include "translators.hh"

namespace viommu::perf {
namespace {

/// Where the live writer maps: in the same domain, in nodes that nobody asks about.
constexpr uint64_t kWriterFirst = uint64_t{1} << 46;

class Ours final : public Translator {
  public:
    Ours(BenchTable table, Way way) : table_(std::move(table)), way_(way) {}

    std::unique_ptr<Lane> lane() override;
    void map_unmap(uint64_t i) override {
        const uint64_t iova = kWriterFirst + i % 511 * kPage;
        table_.map(iova, kPage, kPage);
        table_.unmap(iova, kPage);
        table_.wait_for_readers();
    }

  private:
    BenchTable table_;
    Way way_;
};

class SingleLane final : public Lane {
  public:
    explicit SingleLane(xlate::Reader reader) : reader_(std::move(reader)) {}

    uint64_t run(std::span<const uint32_t> questions) override {
        uint64_t sum = 0;
        for (size_t at = 0; at < questions.size(); at += kBurst) {
            reader_.enter();
            for (size_t i = 0; i < kBurst; ++i)
                sum +=
                    reader_
                        .translate({Workload::iova(questions[at + i])}, kAccessBytes, Access::kRead)
                        .gpa()
                        .value;
            reader_.leave();
        }
        return sum;
    }

  private:
    xlate::Reader reader_;
};

class BurstLane final : public Lane {
  public:
    explicit BurstLane(xlate::Reader reader) : reader_(std::move(reader)) {}

    uint64_t run(std::span<const uint32_t> questions) override {
        uint64_t sum = 0;
        for (size_t at = 0; at < questions.size(); at += kBurst) {
            reader_.enter();
            for (size_t i = 0; i < kBurst; ++i)
                in_[i] = {{Workload::iova(questions[at + i])}, kAccessBytes};
            reader_.translate_burst(in_, out_, Access::kRead);
            for (const auto& translation : out_) sum += translation.gpa().value;
            reader_.leave();
        }
        return sum;
    }

  private:
    xlate::Reader reader_;
    std::array<xlate::Lookup, kBurst> in_{};
    std::vector<xlate::Translation> out_{kBurst,
                                         xlate::Translation::faulted(xlate::FaultReason::kUnknown)};
};

/// The tree as a table walker in hardware would go through it, whatever was found before.
class WalkLane final : public Lane {
  public:
    WalkLane(xlate::Reader section, table::View view, const table::EndpointSlot* endpoint)
        : section_(std::move(section)), view_(view), endpoint_(endpoint) {}

    uint64_t run(std::span<const uint32_t> questions) override {
        uint64_t sum = 0;
        for (size_t at = 0; at < questions.size(); at += kBurst) {
            section_.enter();
            const uint64_t root =
                table::route::root(endpoint_->route.load(std::memory_order_acquire));  // R2
            for (size_t i = 0; i < kBurst; ++i)
                sum += walk(root, Workload::iova(questions[at + i]));
            section_.leave();
        }
        return sum;
    }

  private:
    uint64_t walk(uint64_t root, uint64_t iova) const {
        const table::Node* node = view_.node(root);
        for (unsigned level = view_.levels; level-- > 0;) {
            const unsigned shift = view_.granule_lg2 + table::kNodeBits * level;
            const uint64_t e = node->entries[(iova >> shift) % table::kNodeEntries].load(
                std::memory_order_acquire);  // R1
            if (table::entry::is_leaf(e)) {
                if (!allows(table::entry::rights(e), Access::kRead)) return 0;
                return table::entry::gpa(e, iova).value;
            }
            if (e == 0) return 0;
            node = view_.node(table::entry::node(e));
        }
        return 0;
    }

    xlate::Reader section_;
    table::View view_;
    const table::EndpointSlot* endpoint_;
};

std::unique_ptr<Lane> Ours::lane() {
    auto reader = table_.reader();
    if (!reader) return nullptr;
    table::Table& table = table_.table();
    if (way_ == Way::kWalk)
        return std::make_unique<WalkLane>(std::move(*reader), table.arena().view(),
                                          table.endpoint(BenchTable::kEndpoint));
    if (way_ == Way::kBurst) return std::make_unique<BurstLane>(std::move(*reader));
    return std::make_unique<SingleLane>(std::move(*reader));
}

}  // namespace

Result<std::unique_ptr<Translator>> make_ours(const Workload& workload, Way way) {
    auto table = BenchTable::with_room_for(workload.mapped.size(), way == Way::kHuge
                                                                       ? table::Hugepages::kAlways
                                                                       : table::Hugepages::kNever);
    if (!table) return tl::unexpected(table.error());
    for (const Mapped& m : workload.mapped) table->map(m.iova, m.bytes, m.gpa);
    // A neighbour of what the live writer maps, so that its node stays.
    table->map(kWriterFirst + 511 * kPage, kPage, 0);
    return std::make_unique<Ours>(std::move(*table), way);
}

}  // namespace viommu::perf
