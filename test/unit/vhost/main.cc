// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <rte_eal.h>

#include <iterator>

/// librte_vhost allocates with rte_malloc, so these tests need an EAL: without hugepages, devices
/// or files that another process could see.
int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    const char* eal[] = {"test-vhost",     "--no-huge",      "-m", "64", "--no-pci", "--no-shconf",
                         "--no-telemetry", "--log-level=*:1"};
    if (rte_eal_init(int(std::size(eal)), const_cast<char**>(eal)) < 0) return 2;
    return RUN_ALL_TESTS();
}
