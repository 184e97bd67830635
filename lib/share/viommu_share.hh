// SPDX-License-Identifier: BSD-3-Clause
/// lib/share (L3): readers in other processes.
///
/// A Server gives processes that connect to its socket (SOCK_SEQPACKET, mode 0600) the guest's
/// arena, which they cannot write, and a page of their own, in which their threads say that they
/// are inside a section. A Client is the other end; its Readers are those of lib/xlate, with the
/// same contract and the same cost.
///
/// Theorem: that of lib/xlate holds for them too, until a process is *taken offline*:
///   - it closed its socket, or is dead: nothing of it can use a translation any more;
///   - it held up a request of the guest for longer than the bound: it is killed, which leads to
///   the
///     case above; or, by configuration or for lack of the right to kill, it is only taken offline.
///     Only then can a translation outlive its UNMAP, and the log says so.
/// So no process, whatever it does and wherever it dies, holds up the guest for longer than the
/// bound, and none can write the table.
///
///   server.hh    the daemon's end
///   client.hh    a reader process's end
///   protocol.hh  what goes over the socket
///
/// doc/readers.md tells it to operators and to authors of readers.
#pragma once

#include "client.hh"
#include "protocol.hh"
#include "server.hh"
