// SPDX-License-Identifier: BSD-3-Clause
/// Where DPDK releases from 22.11 on differ. Users of this header depend on `dpdk` themselves.
#pragma once

#include <rte_version.h>

#include <cstddef>

namespace viommu::dpdk_compat {

/// Bytes of the message before the array of file descriptors in what librte_vhost hands to extern
/// message handlers. It grew inside one ABI version, so the library that runs decides, not the
/// headers we were built with.
///
/// Source: lib/vhost/vhost_user.h, struct vhu_msg_context; changed by b1d02713d3 in 25.03
inline size_t vhost_message_bytes() {
    const unsigned release = rte_version_year() * 100 + rte_version_month();
    return release < 2503 ? 644 : 1084;
}

}  // namespace viommu::dpdk_compat
