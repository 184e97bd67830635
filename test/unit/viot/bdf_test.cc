// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "viommu_base.hh"

namespace viommu {
namespace {

TEST(ParseBdf, full_address_gives_segment_and_bdf) {
    EXPECT_EQ(parse_bdf("0000:00:04.0").value(), 0x20u);
    EXPECT_EQ(parse_bdf("0000:00:1f.7").value(), 0xffu);
    EXPECT_EQ(parse_bdf("0001:02:03.4").value(), 0x1021cu);
    EXPECT_EQ(parse_bdf("ffff:ff:1f.7").value(), 0xffffffffu);
}

TEST(ParseBdf, without_segment_means_segment_0) {
    EXPECT_EQ(parse_bdf("00:04.0").value(), 0x20u);
    EXPECT_EQ(parse_bdf("5:4.1").value(), 0x521u);
}

TEST(ParseBdf, upper_case_is_accepted) { EXPECT_EQ(parse_bdf("00AB:CD:1F.0").value(), 0xabcdf8u); }

TEST(ParseBdf, malformed_text_is_refused_with_text_and_form) {
    for (const char* text :
         {"", "4", "00:04", "04.0", "00:04.", "00:04.8", "00:20.0", "100:04.0", "10000:00:04.0",
          "0000:00:04.0.0", "0000:0000:00:04.0", " 00:04.0", "00:04.0 ", "00:-4.0", "00:+4.0",
          "0x0:04.0", ":00:04.0", "0000::04.0", "00:0g.0"}) {
        const auto parsed = parse_bdf(text);
        ASSERT_FALSE(parsed.has_value()) << text << " gave " << *parsed;
        EXPECT_NE(parsed.error().message.find(fmt::format("'{}'", text)), std::string::npos);
        EXPECT_NE(parsed.error().message.find("0000:00:04.0"), std::string::npos);
    }
}

TEST(FormatBdf, every_part_is_padded) {
    EXPECT_EQ(format_bdf(0x20), "0000:00:04.0");
    EXPECT_EQ(format_bdf(0x1021c), "0001:02:03.4");
    EXPECT_EQ(format_bdf(0xffffffff), "ffff:ff:1f.7");
}

TEST(FormatBdf, parse_bdf_gives_the_id_back) {
    for (EndpointId id : {0u, 1u, 7u, 8u, 0xf8u, 0x100u, 0x10000u, 0x12345678u, ~0u})
        EXPECT_EQ(parse_bdf(format_bdf(id)).value(), id);
}

}  // namespace
}  // namespace viommu
