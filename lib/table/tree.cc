// SPDX-License-Identifier: BSD-3-Clause
#include "tree.hh"

#include <algorithm>

namespace viommu::table {
namespace {

/// Visit the slots of a node at `level` that [first, last] touches:
/// f(index, part of the range in the slot, whether that is all of the slot). Stops when f is false.
template <class F>
bool for_each_slot(const Shape& shape, unsigned level, uint64_t first, uint64_t last, F&& f) {
    for (uint64_t at = first;;) {
        const uint64_t slot_last = shape.slot_last(at, level);
        const uint64_t part_last = std::min(slot_last, last);
        const bool whole = part_last == slot_last && at == shape.slot_first(at, level);
        if (!f(shape.index(at, level), IovaRange{{at}, {part_last}}, whole)) return false;
        if (part_last == last) return true;
        at = part_last + 1;
    }
}

uint64_t load(const AtomicWord& word) { return word.load(std::memory_order_relaxed); }

/// `node` may be null: a node that would have to be created.
std::optional<uint64_t> plan(Nodes& nodes, const Shape& shape, Node* node, unsigned level,
                             IovaRange range) {
    uint64_t needed = 0;
    const bool clear = for_each_slot(
        shape, level, range.first.value, range.last.value,
        [&](unsigned index, IovaRange part, bool whole) {
            const uint64_t e = node == nullptr ? 0 : load(node->entries[index]);
            // A linked node is never empty, so a table under a whole slot is an overlap too.
            if (e != 0 && (whole || entry::is_leaf(e))) return false;
            if (whole) return true;
            Node* child = e == 0 ? nullptr : nodes.at(entry::node(e));
            const auto below = plan(nodes, shape, child, level - 1, part);
            if (!below) return false;
            needed += *below + (child == nullptr);
            return true;
        });
    if (!clear) return std::nullopt;
    return needed;
}

/// Constants of one publication.
struct Mapping {
    IovaRange range;
    Gpa gpa;
    Access rights;

    uint64_t leaf(IovaRange part, unsigned size_lg2) const {
        uint64_t e = entry::leaf(gpa, range.first.value, size_lg2, rights);
        if (part.first == range.first) e |= entry::kFirst;
        if (part.last == range.last) e |= entry::kLast;
        return e;
    }
};

/// Returns how many nodes were added below `offset`.
uint32_t fill(Nodes& nodes, const Shape& shape, uint64_t offset, unsigned level, IovaRange range,
              const Mapping& mapping) {
    Node* node = nodes.at(offset);
    unsigned entries = 0;
    uint32_t added = 0;
    for_each_slot(shape, level, range.first.value, range.last.value,
                  [&](unsigned index, IovaRange part, bool whole) {
                      AtomicWord& word = node->entries[index];
                      if (whole) {
                          word.store(mapping.leaf(part, shape.shift(level)), std::memory_order_release);  // W1 pairs R1
                          ++entries;
                          return true;
                      }
                      const uint64_t e = load(word);
                      const uint64_t child = e != 0 ? entry::node(e) : nodes.take();
                      added += fill(nodes, shape, child, level - 1, part, mapping);
                      if (e == 0) {
                          // After everything below it, so that a reader never meets a hole.
                          word.store(child | entry::kTable, std::memory_order_release);  // W1
                          ++entries;
                          ++added;
                      }
                      return true;
                  });
    Book& book = nodes.book(offset);
    book.used = uint16_t(book.used + entries);
    book.nodes += added;
    book.mappings += range.first == mapping.range.first;
    return added;
}

struct Removed {
    uint64_t mappings = 0;
    uint32_t nodes = 0;
};

Removed clear(Nodes& nodes, const Shape& shape, uint64_t offset, unsigned level, IovaRange range) {
    Node* node = nodes.at(offset);
    Removed removed;
    unsigned entries = 0;
    for_each_slot(shape, level, range.first.value, range.last.value,
                  [&](unsigned index, IovaRange part, bool whole) {
                      AtomicWord& word = node->entries[index];
                      const uint64_t e = load(word);
                      if (e == 0) return true;
                      if (entry::is_table(e)) {
                          const uint64_t child = entry::node(e);
                          if (!whole) {
                              const Removed below = clear(nodes, shape, child, level - 1, part);
                              removed.mappings += below.mappings;
                              removed.nodes += below.nodes;
                              if (nodes.book(child).used != 0) return true;
                          }
                          removed.mappings += nodes.book(child).mappings;
                          removed.nodes += nodes.book(child).nodes;
                          nodes.retire(child);
                      } else {
                          removed.mappings += (e & entry::kFirst) != 0;
                      }
                      word.store(0, std::memory_order_relaxed);  // ordered by W3 or Q3
                      ++entries;
                      return true;
                  });
    Book& book = nodes.book(offset);
    book.used = uint16_t(book.used - entries);
    book.nodes -= removed.nodes;
    book.mappings -= removed.mappings;
    return removed;
}

}  // namespace

std::optional<uint64_t> nodes_needed(Nodes& nodes, const Shape& shape, uint64_t root,
                                     IovaRange range) {
    return plan(nodes, shape, nodes.at(root), shape.levels - 1, range);
}

void publish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range, Gpa gpa,
             Access rights) {
    fill(nodes, shape, root, shape.levels - 1, range, {range, gpa, rights});
}

std::optional<Leaf> find_leaf(Nodes& nodes, const Shape& shape, uint64_t root, uint64_t iova) {
    if (iova > shape.tree_last()) return std::nullopt;
    uint64_t offset = root;
    for (unsigned level = shape.levels; level-- > 0;) {
        const uint64_t e = load(nodes.at(offset)->entries[shape.index(iova, level)]);
        if (entry::is_leaf(e))
            return Leaf{e, shape.slot_first(iova, level), shape.slot_last(iova, level)};
        if (e == 0) return std::nullopt;
        offset = entry::node(e);
    }
    return std::nullopt;
}

bool occupied(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range) {
    if (range.first.value > shape.tree_last()) return false;
    const auto node_at = [&](uint64_t offset) { return nodes.at(offset); };
    return first_leaf(node_at, shape, root, shape.levels - 1, range.first.value,
                      std::min(range.last.value, shape.tree_last()))
        .has_value();
}

uint64_t unpublish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range) {
    if (range.first.value > shape.tree_last()) return 0;
    range.last.value = std::min(range.last.value, shape.tree_last());
    return clear(nodes, shape, root, shape.levels - 1, range).mappings;
}

}  // namespace viommu::table
