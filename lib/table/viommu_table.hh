// SPDX-License-Identifier: BSD-3-Clause
/// lib/table (L1): domains, endpoints and their mappings in one shared arena; one writer, many
/// readers.
///
/// A domain is a radix tree shaped like an IOMMU page table: 512 entries per node, leaves at any
/// level, one 8-byte atomic store per entry. Marks in the leaves say where mappings begin and end,
/// so the spec's UNMAP rule (never split a mapping) needs no second index.
///
/// Theorem: the writer unpublishes first, then starts a grace period, and answers the guest only
/// when every reader that was inside a section at that time has left it. Nodes are reused only after
/// the same wait. So a reader inside a section may follow any entry that it finds, and a translation
/// never outlives the answer to its UNMAP. doc/ordering.md has the argument, pair by pair.
///
///   layout.hh    the bytes of the arena
///   arena.hh     the shared memory object, and a read-only View of it
///   walk.hh      the shape of a tree, and the lowest leaf in a range
///   mapped_arena.hh  the arena of another process, mapped read-only
///   section.hh   one thread's way in and out of sections
///   readers.hh   who is inside a section (rte_rcu_qsbr, and the pages of other processes)
///   table.hh     the writer
///
/// Cost: MAP, UNMAP, ATTACH and DETACH look at no more than two nodes of each level, however many
/// mappings they are about (and at each reserved region of the domain's endpoints). A reader walks
/// at most `levels` nodes (4 for 48-bit input at 4 KiB granules, and never fewer than 3). Memory:
/// 8 bytes per mapped granule, one 4 KiB node per 512 of them; 8 bytes per 2 MiB or 1 GiB stretch
/// that a single mapping covers; 16 bytes of the writer's own per node.
#pragma once

#include "arena.hh"
#include "layout.hh"
#include "mapped_arena.hh"
#include "readers.hh"
#include "section.hh"
#include "table.hh"
#include "walk.hh"
