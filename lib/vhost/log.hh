// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "eal_log.hh"

namespace viommu::vhost {

/// --log-level=viommu.vhost:debug shows every message.
extern const EalLog log;

}  // namespace viommu::vhost
