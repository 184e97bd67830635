// SPDX-License-Identifier: BSD-3-Clause
#include "tree.hh"

#include <algorithm>

namespace viommu::table {
namespace {

/// What a range touches of one node: slots that it covers whole, and at either end perhaps a slot
/// that it covers in part. Of a lowest node it covers whole slots only.
struct Split {
    unsigned index, count;  ///< the whole ones
    bool head, tail;        ///< there is a part before them, behind them
};

Split split(const Shape& shape, unsigned level, IovaRange range) {
    const uint64_t first = range.first.value, last = range.last.value;
    const unsigned index = shape.index(first, level), end = shape.index(last, level) + 1;
    const bool head = first != shape.slot_first(first, level) ||
                      last < shape.slot_last(first, level);
    const bool tail = index + head < end && last != shape.slot_last(last, level);
    return {index + head, end - tail - (index + head), head, tail};
}

/// Call f(part) for both parts, or that which there is, until one is false.
template <class F>
bool for_parts(const Shape& shape, unsigned level, IovaRange range, const Split& s, F&& f) {
    if (s.head) {
        const uint64_t slot_last = shape.slot_last(range.first.value, level);
        if (!f(IovaRange{range.first, {std::min(range.last.value, slot_last)}})) return false;
    }
    return !s.tail || f(IovaRange{{shape.slot_first(range.last.value, level)}, range.last});
}

uint64_t load(const AtomicWord& word) { return word.load(std::memory_order_relaxed); }

/// The range lies in one slot, which it does not cover. (Nearly all ranges, at nearly all levels.)
bool is_part_of_slot(const Shape& shape, unsigned level, IovaRange range) {
    const uint64_t in_slot = (uint64_t{1} << shape.shift(level)) - 1;
    const uint64_t first = range.first.value, last = range.last.value;
    return ((first ^ last) & ~in_slot) == 0 && ((first & in_slot) != 0 || (~last & in_slot) != 0);
}

/// `node` may be null: a node that would have to be created.
std::optional<uint64_t> plan(Nodes& nodes, const Shape& shape, Node* node, unsigned level,
                             IovaRange range) {
    uint64_t needed = 0;
    const auto descend = [&](Node*& at, IovaRange part) {  // false: a leaf is in the way
        const uint64_t e =
            at == nullptr ? 0 : load(at->entries[shape.index(part.first.value, level)]);
        if (entry::is_leaf(e)) return false;
        at = e == 0 ? nullptr : nodes.at(entry::node(e));
        needed += at == nullptr;
        return true;
    };
    for (; is_part_of_slot(shape, level, range); --level)
        if (!descend(node, range)) return std::nullopt;

    const Split s = split(shape, level, range);
    if (node != nullptr) {
        // A linked node is never empty, so a table under a whole slot is an overlap too.
        const AtomicWord* words = node->entries + s.index;
        for (unsigned i = 0; i < s.count; ++i)
            if (load(words[i]) != 0) return std::nullopt;
    }
    const bool clear = for_parts(shape, level, range, s, [&](IovaRange part) {
        Node* child = node;
        if (!descend(child, part)) return false;
        const auto below = plan(nodes, shape, child, level - 1, part);
        needed += below.value_or(0);
        return below.has_value();
    });
    if (!clear) return std::nullopt;
    return needed;
}

/// Constants of one publication.
struct Mapping {
    IovaRange range;
    Gpa gpa;
    Access rights;
};

/// Store leaves, each with one store and its marks in it. All leaves of one size of a mapping are
/// the same word, so this is little more than a memset(). count > 0.
void store_run(AtomicWord* words, unsigned count, uint64_t leaf, bool begins, bool ends) {
    const uint64_t first = leaf | (begins ? entry::kFirst : 0);
    const uint64_t last = (count == 1 ? first : leaf) | (ends ? entry::kLast : 0);
    if (count > 1) words[0].store(first, std::memory_order_release);  // W1 pairs R1
    for (unsigned i = 1; i + 1 < count; ++i)
        words[i].store(leaf, std::memory_order_release);        // W1 pairs R1
    words[count - 1].store(last, std::memory_order_release);  // W1 pairs R1
}

/// A node on the way down, and the word in it that leads on.
struct Step {
    uint64_t offset;
    AtomicWord* word;
};

/// Returns how many nodes were added below `offset`.
uint32_t fill(Nodes& nodes, const Shape& shape, uint64_t offset, unsigned level, IovaRange range,
              const Mapping& mapping) {
    // Down to where the range is more than a part of one slot, linking nothing yet.
    Step way[kMaxLevels];
    unsigned steps = 0;
    for (; is_part_of_slot(shape, level, range); --level) {
        AtomicWord& word = nodes.at(offset)->entries[shape.index(range.first.value, level)];
        way[steps++] = {offset, &word};
        const uint64_t e = load(word);
        offset = e != 0 ? entry::node(e) : nodes.take();
    }

    Node* node = nodes.at(offset);
    const Split s = split(shape, level, range);
    unsigned entries = s.count;
    uint32_t added = 0;
    // A node is linked after everything below it, so that a reader never meets a hole.
    const auto link = [&](AtomicWord& word, uint64_t child) {
        if (load(word) != 0) return false;
        word.store(child | entry::kTable, std::memory_order_release);  // W1 pairs R1
        ++added;
        return true;
    };
    if (s.count != 0)
        store_run(node->entries + s.index, s.count,
                  entry::leaf(mapping.gpa, mapping.range.first.value, shape.shift(level),
                              mapping.rights),
                  !s.head && range.first == mapping.range.first,
                  !s.tail && range.last == mapping.range.last);
    for_parts(shape, level, range, s, [&](IovaRange part) {
        AtomicWord& word = node->entries[shape.index(part.first.value, level)];
        const uint64_t e = load(word);
        const uint64_t child = e != 0 ? entry::node(e) : nodes.take();
        added += fill(nodes, shape, child, level - 1, part, mapping);
        entries += link(word, child);
        return true;
    });

    const auto note = [&](uint64_t at, unsigned used) {
        Book& book = nodes.book(at);
        book.used = uint16_t(book.used + used);
        book.nodes += added;
        book.mappings += range.first == mapping.range.first;
    };
    note(offset, entries);
    while (steps > 0) {
        const Step& step = way[--steps];
        note(step.offset, link(*step.word, offset));
        offset = step.offset;
    }
    return added;
}

struct Removed {
    uint64_t mappings = 0;
    uint32_t nodes = 0;
};

Removed clear(Nodes& nodes, const Shape& shape, uint64_t offset, unsigned level, IovaRange range) {
    Removed removed;
    // Down to where the range is more than a part of one slot. A leaf on the way would be split:
    // `range` splits none.
    Step way[kMaxLevels];
    unsigned steps = 0;
    for (; is_part_of_slot(shape, level, range); --level) {
        AtomicWord& word = nodes.at(offset)->entries[shape.index(range.first.value, level)];
        const uint64_t e = load(word);
        if (e == 0) return removed;
        way[steps++] = {offset, &word};
        offset = entry::node(e);
    }

    Node* node = nodes.at(offset);
    const Split s = split(shape, level, range);
    unsigned entries = 0;
    const auto unlink = [&](AtomicWord& word, uint64_t child) {
        removed.mappings += nodes.book(child).mappings;
        removed.nodes += nodes.book(child).nodes;
        nodes.retire(child);
        word.store(0, std::memory_order_relaxed);  // ordered by W3 or Q3
        return true;
    };
    for (AtomicWord *word = node->entries + s.index, *end = word + s.count; word != end; ++word) {
        const uint64_t e = load(*word);
        if (e == 0) continue;
        ++entries;
        if (entry::is_table(e)) {
            unlink(*word, entry::node(e));
        } else {
            removed.mappings += (e & entry::kFirst) != 0;
            word->store(0, std::memory_order_relaxed);  // ordered by W3 or Q3
        }
    }
    for_parts(shape, level, range, s, [&](IovaRange part) {
        AtomicWord& word = node->entries[shape.index(part.first.value, level)];
        const uint64_t e = load(word);
        if (e == 0) return true;
        const uint64_t child = entry::node(e);
        const Removed below = clear(nodes, shape, child, level - 1, part);
        removed.mappings += below.mappings;
        removed.nodes += below.nodes;
        entries += nodes.book(child).used == 0 && unlink(word, child);
        return true;
    });

    const auto note = [&](uint64_t at, unsigned unused) {
        Book& book = nodes.book(at);
        book.used = uint16_t(book.used - unused);
        book.nodes -= removed.nodes;
        book.mappings -= removed.mappings;
    };
    note(offset, entries);
    while (steps > 0) {
        const Step& step = way[--steps];
        note(step.offset, nodes.book(offset).used == 0 && unlink(*step.word, offset));
        offset = step.offset;
    }
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
