// SPDX-License-Identifier: BSD-3-Clause
/// lib/xlate (L2): what a data-plane thread uses to translate.
///
/// A Reader belongs to one thread and one endpoint. All translation happens inside a section:
///
///     reader.enter();
///     auto t = reader.translate(Iova{addr}, len, Access::kRead);   // any number
///     if (!t) reader.report(Iova{addr}, Access::kRead, t.fault());
///     reader.leave();
///
/// Theorem: an UNMAP, DETACH or re-ATTACH is answered to the guest only after every section that
/// could have seen what it removed has been left. So inside a section a translation may be used to
/// touch guest memory, and nothing translated may be used after leave(). One section per burst;
/// never block or sleep in one: it delays the guest's UNMAPs.
///
/// Cost: enter() is one store and one full fence, leave() one store; translate() takes no lock,
/// makes no call that can block, allocates nothing. Of 48 bits with 4 KiB granules, an address near
/// the last one (in the same 512 GiB) takes three dependent loads, any other four, whatever the size
/// of the leaf. translate_burst() lets the misses of many addresses overlap.
#pragma once

#include "fault.hh"
#include "fault_queue.hh"
#include "reader.hh"
