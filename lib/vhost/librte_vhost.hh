// SPDX-License-Identifier: BSD-3-Clause
/// rte_vhost.h for C++; include it last.
///
/// It leaves out the kernel's ring structures for C++, which is fine: it only points to them, and
/// ours are in lib/wire. But it defines macros with the names of lib/wire's constants.
#pragma once

#include <rte_vhost.h>

#undef VHOST_USER_F_PROTOCOL_FEATURES
#undef VHOST_USER_PROTOCOL_F_CONFIG
#undef VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
#undef VHOST_USER_PROTOCOL_F_LOG_SHMFD
#undef VHOST_USER_PROTOCOL_F_MQ
#undef VHOST_USER_PROTOCOL_F_REPLY_ACK
#undef VHOST_USER_PROTOCOL_F_BACKEND_REQ
#undef VIRTIO_NET_F_GUEST_ANNOUNCE
#undef VIRTIO_NET_F_MQ
#undef VIRTIO_NET_F_MTU
