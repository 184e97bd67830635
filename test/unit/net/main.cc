// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <rte_eal.h>

#include <iterator>
#include <string>

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    // Packet pools live in EAL's heap. No root, no hugepages, no other process.
    std::string eal[] = {
        "test-net",       "--no-huge",        "-m", "64", "--no-pci", "--no-shconf",
        "--no-telemetry", "--log-level=error"};
    char* arguments[std::size(eal)];
    for (size_t i = 0; i < std::size(eal); ++i) arguments[i] = eal[i].data();
    if (rte_eal_init(int(std::size(eal)), arguments) < 0) return 2;
    const int result = RUN_ALL_TESTS();
    rte_eal_cleanup();
    return result;
}
