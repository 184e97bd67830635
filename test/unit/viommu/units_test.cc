// SPDX-License-Identifier: BSD-3-Clause
#include "units.hh"

#include <gtest/gtest.h>

namespace viommu::app {
namespace {

TEST(ParseNumber, decimal_and_hexadecimal_up_to_64_bits) {
    EXPECT_EQ(parse_number("0"), 0u);
    EXPECT_EQ(parse_number("4096"), 4096u);
    EXPECT_EQ(parse_number("0xfee00000"), 0xfee00000u);
    EXPECT_EQ(parse_number("0xffffffffffffffff"), ~uint64_t{0});
    EXPECT_EQ(parse_number("18446744073709551615"), ~uint64_t{0});
}

TEST(ParseNumber, anything_else_is_none) {
    for (const char* text : {"", "0x", "-1", "+1", " 1", "1 ", "1K", "0x10000000000000000",
                             "18446744073709551616", "0xg", "1.0"})
        EXPECT_FALSE(parse_number(text).has_value()) << text;
}

TEST(ParseSize, units_are_powers_of_1024) {
    EXPECT_EQ(parse_size("4K"), 4096u);
    EXPECT_EQ(parse_size("64M"), uint64_t{64} << 20);
    EXPECT_EQ(parse_size("1G"), uint64_t{1} << 30);
    EXPECT_EQ(parse_size("2T"), uint64_t{2} << 40);
    EXPECT_EQ(parse_size("512"), 512u);
}

TEST(ParseSize, overflow_and_bare_units_are_none) {
    for (const char* text : {"K", "", "4k", "4KB", "16777216T", "18446744073709551615K"})
        EXPECT_FALSE(parse_size(text).has_value()) << text;
}

TEST(FormatSize, the_largest_unit_that_is_exact) {
    EXPECT_EQ(format_size(0), "0");
    EXPECT_EQ(format_size(1023), "1023");
    EXPECT_EQ(format_size(4096), "4K");
    EXPECT_EQ(format_size(4097), "4097");
    EXPECT_EQ(format_size(uint64_t{3} << 30), "3G");
    EXPECT_EQ(format_size(uint64_t{2048} << 40), "2048T");
}

TEST(ParseMac, six_pairs_and_nothing_else) {
    EXPECT_EQ(parse_mac("52:54:00:12:34:56"), (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
    EXPECT_EQ(parse_mac("FF:ff:Ff:00:00:01"), (MacAddress{0xff, 0xff, 0xff, 0, 0, 1}));
    for (const char* text : {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:567",
                             "52-54-00-12-34-56", "5g:54:00:12:34:56", "-1:54:00:12:34:56"})
        EXPECT_FALSE(parse_mac(text).has_value()) << text;
}

TEST(FormatMac, parse_mac_gives_the_address_back) {
    const MacAddress mac{0x02, 0xab, 0, 1, 0x10, 0xff};
    EXPECT_EQ(format_mac(mac), "02:ab:00:01:10:ff");
    EXPECT_EQ(parse_mac(format_mac(mac)), mac);
}

TEST(DeriveMac, same_name_gives_same_local_unicast_address) {
    for (const char* name : {"vm0/net0", "vm0/net1", "vm1/net0", ""})
        EXPECT_EQ(derive_mac(name)[0] & 3, 2) << name;
    EXPECT_EQ(derive_mac("vm0/net0"), derive_mac("vm0/net0"));
    EXPECT_NE(derive_mac("vm0/net0"), derive_mac("vm0/net1"));
}

TEST(FormatPageSizes, sizes_are_listed_or_summed_up) {
    EXPECT_EQ(format_page_sizes(0x40201000), "4K 2M 1G");
    EXPECT_EQ(format_page_sizes(~uint64_t{0xfff}), "4K and every larger power of two");
    EXPECT_EQ(format_page_sizes(0x10000), "64K");
    EXPECT_EQ(format_page_sizes(0), "none");
}

}  // namespace
}  // namespace viommu::app
