// SPDX-License-Identifier: BSD-3-Clause
#include "config_window.hh"

#include <gtest/gtest.h>

#include <vector>

namespace viommu::wire {
namespace {

struct Space {
    uint8_t bytes[5] = {1, 2, 3, 4, 5};
};

std::vector<int> window(uint32_t offset, std::size_t size) {
    std::vector<std::byte> out(size, std::byte{0xee});
    read_config_window(Space{}, offset, out);
    std::vector<int> numbers;
    for (const std::byte b : out) numbers.push_back(int(b));
    return numbers;
}

TEST(ConfigWindow, read_gives_what_is_there_and_zeroes_behind_it) {
    EXPECT_EQ(window(0, 5), (std::vector{1, 2, 3, 4, 5}));
    EXPECT_EQ(window(2, 2), (std::vector{3, 4}));
    EXPECT_EQ(window(4, 3), (std::vector{5, 0, 0}));
    EXPECT_EQ(window(5, 2), (std::vector{0, 0}));
    EXPECT_EQ(window(0xffffffff, 2), (std::vector{0, 0}));
}

TEST(ConfigWindow, read_of_nothing_touches_nothing) {
    read_config_window(Space{}, 0, {});
    read_config_window(Space{}, 9, {});
    EXPECT_TRUE(window(3, 0).empty());
}

TEST(ConfigWindow, write_touches_a_byte_or_not) {
    const std::byte in[] = {std::byte{7}, std::byte{8}};
    EXPECT_EQ(written_config_byte(4, 4, in), 7);
    EXPECT_EQ(written_config_byte(4, 3, in), 8);
    EXPECT_FALSE(written_config_byte(4, 2, in));
    EXPECT_FALSE(written_config_byte(4, 5, in));
    EXPECT_FALSE(written_config_byte(4, 4, {}));
    EXPECT_FALSE(written_config_byte(4, 0xffffffff, in));
}

}  // namespace
}  // namespace viommu::wire
