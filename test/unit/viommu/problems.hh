// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "config.hh"

namespace viommu::app {

/// Line 1 is the first one of `text`.
inline tl::expected<Config, Problems> parse(const std::string& text) {
    return parse_config(text, "vm.toml");
}

inline std::string joined(const Problems& problems) {
    std::string out;
    for (const auto& p : problems) out += p + "\n";
    return out;
}

/// `text` has exactly one problem, and its message has every one of `parts`.
inline void expect_problem(const std::string& text, std::initializer_list<const char*> parts) {
    const auto config = parse(text);
    ASSERT_FALSE(config.has_value()) << "accepted:\n" << text;
    EXPECT_EQ(config.error().size(), 1u) << joined(config.error());
    for (const char* part : parts)
        EXPECT_NE(config.error()[0].find(part), std::string::npos)
            << "no '" << part << "' in: " << config.error()[0];
}

/// A guest that is right, of 6 lines; `more` lines follow as line 7 and on.
inline std::string guest_with(const std::string& more, const std::string& name = "vm0") {
    return fmt::format(
        "[[guest]]\n"
        "name = \"{0}\"\n"
        "socket = \"/run/{0}.sock\"\n"
        "input_range = {{ first = 0x1000000, last = 0x3fffffff }}\n"
        "lcore = 1\n"
        "endpoint = [ {{ id = \"0000:00:05.0\" }} ]\n"
        "{1}\n",
        name, more);
}

/// A net port of 4 lines; `more` lines follow.
inline std::string net_with(const std::string& more, const std::string& name = "net0",
                            const std::string& bdf = "0000:00:04.0",
                            const std::string& guest = "vm0") {
    return fmt::format(
        "[[guest.net]]\n"
        "name = \"{0}\"\n"
        "socket = \"/run/{3}-{0}.sock\"\n"
        "endpoint = \"{2}\"\n"
        "{1}\n",
        name, more, bdf, guest);
}

}  // namespace viommu::app
