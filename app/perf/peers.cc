// SPDX-License-Identifier: BSD-3-Clause
#include <rte_rwlock.h>
#include <sys/queue.h>

#include <deque>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "translators.hh"

namespace viommu::perf {
namespace {

constexpr uint64_t kWriterFirst = uint64_t{1} << 46;
constexpr uint8_t kRead = 1;

// --- a lock and an ordered map -------------------------------------------------------------------

class OrderedMap final : public Translator {
  public:
    explicit OrderedMap(const Workload& workload) {
        for (const Mapped& m : workload.mapped)
            map_.emplace_hint(map_.end(), m.iova, Entry{m.iova + m.bytes - 1, m.gpa, kRead});
    }

    std::unique_ptr<Lane> lane() override { return std::make_unique<MapLane>(*this); }

    void map_unmap(uint64_t i) override {
        const uint64_t iova = kWriterFirst + i % 511 * kPage;
        {
            const std::unique_lock lock(mutex_);
            map_.emplace(iova, Entry{iova + kPage - 1, kPage, kRead});
        }
        const std::unique_lock lock(mutex_);
        map_.erase(iova);
    }

  private:
    struct Entry {
        uint64_t last, gpa;
        uint8_t rights;
    };
    struct MapLane final : Lane {
        explicit MapLane(OrderedMap& table) : table_(table) {}
        /// One lock for each question: where the peers have it.
        uint64_t run(std::span<const uint32_t> questions) override {
            uint64_t sum = 0;
            for (const uint32_t question : questions) {
                const uint64_t iova = Workload::iova(question);
                const std::shared_lock lock(table_.mutex_);
                auto it = table_.map_.upper_bound(iova);
                if (it == table_.map_.begin()) continue;
                --it;
                if (iova + kAccessBytes - 1 <= it->second.last && (it->second.rights & kRead) != 0)
                    sum += it->second.gpa + (iova - it->first);
            }
            return sum;
        }
        OrderedMap& table_;
    };

    std::shared_mutex mutex_;
    std::map<uint64_t, Entry> map_;
};

// --- librte_vhost's shape ------------------------------------------------------------------------

/// Entries in a pool, in a list sorted by address; the lock is held for a whole burst.
class List final : public Translator {
  public:
    explicit List(const Workload& workload) {
        TAILQ_INIT(&list_);
        for (const Mapped& m : workload.mapped) {
            pool_.push_back(
                {.iova = m.iova, .address = m.gpa, .bytes = m.bytes, .perm = kRead, .next = {}});
            TAILQ_INSERT_TAIL(&list_, &pool_.back(), next);
        }
        pool_.push_back({});
    }

    std::unique_ptr<Lane> lane() override { return std::make_unique<ListLane>(*this); }

    void map_unmap(uint64_t i) override {
        Entry& entry = pool_.back();
        const uint64_t iova = kWriterFirst + i % 511 * kPage;
        rte_rwlock_write_lock(&lock_);
        entry = {.iova = iova, .address = kPage, .bytes = kPage, .perm = kRead, .next = {}};
        Entry* at;
        TAILQ_FOREACH(at, &list_, next) {
            if (at->iova > iova) break;
        }
        if (at != nullptr)
            TAILQ_INSERT_BEFORE(at, &entry, next);
        else
            TAILQ_INSERT_TAIL(&list_, &entry, next);
        rte_rwlock_write_unlock(&lock_);
        rte_rwlock_write_lock(&lock_);
        TAILQ_FOREACH(at, &list_, next) {
            if (at->iova == iova) break;
        }
        TAILQ_REMOVE(&list_, at, next);
        rte_rwlock_write_unlock(&lock_);
    }

  private:
    struct Entry {
        uint64_t iova, address, bytes;
        uint8_t perm;
        TAILQ_ENTRY(Entry) next;
    };
    struct ListLane final : Lane {
        explicit ListLane(List& table) : table_(table) {}
        uint64_t run(std::span<const uint32_t> questions) override {
            uint64_t sum = 0;
            for (size_t at = 0; at < questions.size(); at += kBurst) {
                rte_rwlock_read_lock(&table_.lock_);
                for (size_t i = 0; i < kBurst; ++i)
                    sum += table_.find(Workload::iova(questions[at + i]), kAccessBytes);
                rte_rwlock_read_unlock(&table_.lock_);
            }
            return sum;
        }
        List& table_;
    };

    uint64_t find(uint64_t iova, uint64_t bytes) const {
        uint64_t mapped = 0, found = 0;
        const Entry* entry;
        TAILQ_FOREACH(entry, &list_, next) {
            if (iova < entry->iova) break;  // sorted
            if (iova >= entry->iova + entry->bytes) continue;
            if ((entry->perm & kRead) != kRead) return 0;
            const uint64_t offset = iova - entry->iova;
            if (found == 0) found = entry->address + offset;
            mapped += entry->bytes - offset;
            iova = entry->iova + entry->bytes;
            if (mapped >= bytes) break;
        }
        return mapped >= bytes ? found : 0;
    }

    rte_rwlock_t lock_ = RTE_RWLOCK_INITIALIZER;
    TAILQ_HEAD(, Entry) list_;
    std::deque<Entry> pool_;
};

// --- nothing -------------------------------------------------------------------------------------

class Nothing final : public Translator {
  public:
    std::unique_ptr<Lane> lane() override { return std::make_unique<EmptyLane>(); }
    void map_unmap(uint64_t) override {}

  private:
    struct EmptyLane final : Lane {
        uint64_t run(std::span<const uint32_t> questions) override {
            uint64_t sum = 0;
            for (const uint32_t question : questions) {
                uint64_t iova = Workload::iova(question);
                asm volatile("" : "+r"(iova));  // one question at a time, as the others
                sum += iova;
            }
            return sum;
        }
    };
};

}  // namespace

std::unique_ptr<Translator> make_map(const Workload& workload) {
    return std::make_unique<OrderedMap>(workload);
}

std::unique_ptr<Translator> make_list(const Workload& workload) {
    return std::make_unique<List>(workload);
}

std::unique_ptr<Translator> make_nothing() { return std::make_unique<Nothing>(); }

uint64_t expected_sum(const Workload& workload) {
    std::map<uint64_t, const Mapped*> by_first;
    for (const Mapped& m : workload.mapped) by_first.emplace_hint(by_first.end(), m.iova, &m);
    uint64_t sum = 0;
    for (const uint32_t question : workload.stream) {
        const uint64_t iova = Workload::iova(question);
        const Mapped& m = *std::prev(by_first.upper_bound(iova))->second;
        sum += m.gpa + (iova - m.iova);
    }
    return sum;
}

}  // namespace viommu::perf
