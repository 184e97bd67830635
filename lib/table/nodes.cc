// SPDX-License-Identifier: BSD-3-Clause
#include "nodes.hh"

#include <new>
#include <utility>

namespace viommu::table {

Nodes::Nodes(Arena& arena)
    : arena_(arena),
      first_(arena.header().nodes_offset),
      max_(arena.header().max_nodes),
      books_(static_cast<Book*>(std::calloc(max_, sizeof(Book)))) {
    if (!books_) throw std::bad_alloc();
}

uint64_t Nodes::take() noexcept {
    uint64_t offset;
    if (free_.empty()) {
        offset = first_ + kNodeBytes * fresh_++;
    } else {
        offset = free_.back();
        free_.pop_back();
        --free_nodes_;
        if (book(offset).used != 0) {
            for (auto& word : at(offset)->entries) {
                const uint64_t e = word.load(std::memory_order_relaxed);
                if (entry::is_table(e)) free_.push_back(entry::node(e));
                word.store(0, std::memory_order_relaxed);
            }
        }
    }
    book(offset) = {.mappings = 0, .nodes = 1, .used = 0};
    return offset;
}

void Nodes::retire(uint64_t offset) {
    retired_.roots.push_back(offset);
    retired_.nodes += book(offset).nodes;
}

void Nodes::start_waiting(Readers::Token token) {
    if (retired_.roots.empty()) return;
    waiting_count_ += retired_.roots.size();
    waiting_.push_back(std::exchange(retired_, {}));
    waiting_.back().token = token;
}

void Nodes::grace_over(Readers::Token token) {
    while (!waiting_.empty() && waiting_.front().token <= token) {
        const Batch& batch = waiting_.front();
        free_.insert(free_.end(), batch.roots.begin(), batch.roots.end());
        free_nodes_ += batch.nodes;
        waiting_count_ -= batch.roots.size();
        waiting_.pop_front();
    }
}

uint64_t Nodes::count(uint64_t offset) noexcept {
    uint64_t n = 1;
    for (const auto& word : at(offset)->entries) {
        const uint64_t e = word.load(std::memory_order_relaxed);
        if (entry::is_table(e)) n += count(entry::node(e));
    }
    return n;
}

uint64_t Nodes::count_waiting() noexcept {
    uint64_t n = 0;
    for (const uint64_t offset : retired_.roots) n += count(offset);
    for (const auto& batch : waiting_)
        for (const uint64_t offset : batch.roots) n += count(offset);
    return n;
}

}  // namespace viommu::table
