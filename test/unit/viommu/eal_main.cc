// SPDX-License-Identifier: BSD-3-Clause
// Tests of what needs an EAL: started once, with worker lcores 1, 2 and 3.
#include <gtest/gtest.h>
#include <rte_eal.h>

#include "eal.hh"

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    const unsigned lcores[] = {1, 2, 3};
    auto machine = viommu::app::this_machine();
    machine.hugepages = false;  // the same everywhere
    const auto started =
        viommu::app::start_eal(viommu::app::default_eal_arguments(lcores, machine));
    if (!started) {
        fmt::print(stderr, "{}\n", started.error().message);
        return 1;
    }
    const int result = RUN_ALL_TESTS();
    rte_eal_cleanup();
    return result;
}
