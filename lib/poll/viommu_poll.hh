// SPDX-License-Identifier: BSD-3-Clause
/// lib/poll (L1): what an lcore polls, and when it may sleep.
///
/// A Poller runs on one thread and calls poll() of everything added to it, round after round.
/// Control threads add and remove Pollables at any time; remove() returns only when the Poller is
/// not inside that Pollable and never will be again. That is how rings and guest memory are taken
/// away from a running lcore: remove, unmap, add again.
///
/// Theorem: the set is an immutable list behind one atomic pointer (RCU). The polling thread
/// reports quiescence to an rte_rcu_qsbr once a round and is offline while it sleeps; a control
/// thread publishes a new list and waits for a grace period. The poll loop takes no lock.
///
/// Poll policy (design: busy or adaptive):
///   busy      never sleeps
///   adaptive  spins for a while after the last work, then pauses, then arms every Pollable
///             (enables guest notifications, checks again) and sleeps in epoll on their event fds,
///             at most for the shortest of their sleep limits. Where a limit is zero it yields the
///             core between rounds instead, so that two pollers on one core both make progress
#pragma once

#include "poller.hh"
