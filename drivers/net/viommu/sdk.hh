// SPDX-License-Identifier: BSD-3-Clause
/// DPDK's headers for drivers, which are not installed with a DPDK that was built without
/// enable_driver_sdk, and where they differ from 22.11 on.
#pragma once

#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>
#include <rte_version.h>

/// The last parameter of eth_stats_get_t. Counters of queues are xstats here in all releases.
/// Source: lib/ethdev/ethdev_driver.h; since 25.11
#if RTE_VERSION >= RTE_VERSION_NUM(25, 11, 0, 0)
#define VIOMMU_QUEUE_STATS_PARAMETER , eth_queue_stats*
#else
#define VIOMMU_QUEUE_STATS_PARAMETER
#endif
