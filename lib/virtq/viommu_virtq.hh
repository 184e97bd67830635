// SPDX-License-Identifier: BSD-3-Clause
/// lib/virtq (L1): the device side of split virtqueues over hostile guest memory.
///
///   memory_map.hh    guest memory regions of a connection: GPA, UVA -> our address
///   vring.hh         where a queue is, as the frontend told us
///   split_queue.hh   taking chains, returning them; generic over the address space its ring lives in
#pragma once

#include "memory_map.hh"
#include "split_queue.hh"
#include "vring.hh"
