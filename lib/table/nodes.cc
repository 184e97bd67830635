// SPDX-License-Identifier: BSD-3-Clause
#include "nodes.hh"

namespace viommu::table {

Nodes::Nodes(Arena& arena)
    : arena_(arena),
      first_(arena.header().nodes_offset),
      max_(arena.header().max_nodes),
      used_(max_, 0) {}

uint64_t Nodes::take() noexcept {
    if (!free_.empty()) {
        const uint64_t offset = free_.back();
        free_.pop_back();
        return offset;
    }
    return first_ + kNodeBytes * fresh_++;
}

void Nodes::start_waiting(Readers::Token token) {
    if (retired_.empty()) return;
    waiting_count_ += retired_.size();
    waiting_.push_back({token, std::move(retired_)});
    retired_.clear();
}

void Nodes::grace_over(Readers::Token token) {
    while (!waiting_.empty() && waiting_.front().token <= token) {
        for (const uint64_t offset : waiting_.front().roots) free_tree(offset);
        waiting_count_ -= waiting_.front().roots.size();
        waiting_.pop_front();
    }
}

void Nodes::free_tree(uint64_t offset) {
    Node* node = at(offset);
    if (used(offset) != 0) {
        for (auto& word : node->entries) {
            const uint64_t e = word.load(std::memory_order_relaxed);
            if (e == 0) continue;
            if (entry::is_table(e)) free_tree(entry::address(e));
            word.store(0, std::memory_order_relaxed);
        }
        used(offset) = 0;
    }
    free_.push_back(offset);
}

uint64_t Nodes::count(uint64_t offset) noexcept {
    uint64_t n = 1;
    for (const auto& word : at(offset)->entries) {
        const uint64_t e = word.load(std::memory_order_relaxed);
        if (entry::is_table(e)) n += count(entry::address(e));
    }
    return n;
}

uint64_t Nodes::count_waiting() noexcept {
    uint64_t n = 0;
    for (const uint64_t offset : retired_) n += count(offset);
    for (const auto& batch : waiting_)
        for (const uint64_t offset : batch.roots) n += count(offset);
    return n;
}

}  // namespace viommu::table
