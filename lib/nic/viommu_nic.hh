// SPDX-License-Identifier: BSD-3-Clause
/// lib/nic (L4): a virtio-net port behind its vhost-user socket, whoever polls it.
///
///   gate.hh         how a control thread keeps one polling thread out
///   net_handler.hh  NetPort's control methods as what lib/vhost calls
///
/// lib/net knows no sockets and lib/vhost no packets; this is the glue between them, which the
/// daemon's ports and libviommu_net share.
#pragma once

#include "gate.hh"
#include "net_handler.hh"
