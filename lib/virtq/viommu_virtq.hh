// SPDX-License-Identifier: BSD-3-Clause
/// lib/virtq (L1): the device side of virtqueues over hostile guest memory.
///
///   memory_map.hh      guest memory regions of a connection: GPA, UVA -> our address
///   vring.hh           where a queue is, as the frontend told us; ring features
///   address_space.hh   what the addresses in a ring mean: the concept, and GPAs
///   ring_part.hh       a part of a ring that may be scattered over our memory
///   chain.hh           a descriptor chain; copying between it and our memory
///   dirty_log.hh       which pages the device has written, for migration
///   indirect_table.hh  descriptors in a table of their own
///   plain.hh           a chain of one direct descriptor: what bursts take many of at once
///   queue_base.hh      what both ring formats share
///   split_queue.hh     split rings
///   packed_queue.hh    packed rings
///   queue.hh           a ring of the negotiated format; how to use it
#pragma once

#include "address_space.hh"
#include "chain.hh"
#include "dirty_log.hh"
#include "memory_map.hh"
#include "plain.hh"
#include "queue.hh"
#include "vring.hh"
