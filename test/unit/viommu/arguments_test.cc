// SPDX-License-Identifier: BSD-3-Clause
#include "arguments.hh"

#include <gtest/gtest.h>

namespace viommu::app {
namespace {

Command parse(std::vector<const char*> words) {
    words.insert(words.begin(), "dpdk-viommu");
    return parse_arguments(int(words.size()), words.data());
}

TEST(Arguments, none_serve_the_default_configuration) {
    const auto serve = std::get<ServeCommand>(parse({}));
    EXPECT_EQ(serve.config, kDefaultConfig);
    EXPECT_FALSE(serve.check);
    EXPECT_FALSE(serve.poll.has_value());
    EXPECT_FALSE(serve.eal.has_value());
}

TEST(Arguments, serve_options_are_taken) {
    const auto serve =
        std::get<ServeCommand>(parse({"--config", "a.toml", "--check", "--poll", "busy"}));
    EXPECT_EQ(serve.config, "a.toml");
    EXPECT_TRUE(serve.check);
    EXPECT_EQ(serve.poll, poll::Policy::kBusy);
}

TEST(Arguments, everything_after_eal_is_the_eals) {
    const auto serve = std::get<ServeCommand>(
        parse({"--config", "a.toml", "--eal", "--no-huge", "-m", "256", "--check"}));
    EXPECT_EQ(serve.eal, (std::vector<std::string>{"--no-huge", "-m", "256", "--check"}));
    EXPECT_FALSE(serve.check);
}

TEST(Arguments, viot_options_are_taken) {
    const auto viot = std::get<ViotCommand>(
        parse({"viot", "--iommu", "0000:00:03.0", "--endpoint", "00:04.0", "0001:00:05.0",
               "--endpoint", "00:06.1", "--body", "--output", "x"}));
    EXPECT_EQ(viot.iommu, 0x18u);
    EXPECT_EQ(viot.endpoints, (std::vector<EndpointId>{0x20, 0x10028, 0x31}));
    EXPECT_TRUE(viot.body);
    EXPECT_EQ(viot.output, "x");
}

void expect_refused(const std::vector<const char*>& words,
                    std::initializer_list<const char*> parts) {
    const auto print = std::get<PrintCommand>(parse(words));
    EXPECT_EQ(print.exit_status, 2);
    for (const char* part : parts)
        EXPECT_NE(print.text.find(part), std::string::npos) << print.text;
}

TEST(Arguments, wrong_ones_are_refused_by_name) {
    expect_refused({"--frob"}, {"--frob", "--help"});
    expect_refused({"--poll", "lazy"}, {"--poll", "lazy", "busy"});
    expect_refused({"viot", "--endpoint", "00:04.0"}, {"--iommu", "required"});
    expect_refused({"viot", "--iommu", "00:03.0", "--endpoint", "00:44.0"},
                   {"--endpoint", "00:44.0", "00 to 1f"});
    expect_refused({"viot", "--iommu", "0:3.0", "--endpoint", "0:4.0", "--eal"}, {"--eal"});
}

TEST(Arguments, help_names_every_option_and_succeeds) {
    const auto print = std::get<PrintCommand>(parse({"--help"}));
    EXPECT_EQ(print.exit_status, 0);
    for (const char* part :
         {"--config", "--check", "--poll", "--eal", "--version", "viot", "SIGUSR1", "Exit status"})
        EXPECT_NE(print.text.find(part), std::string::npos) << part;
}

TEST(Arguments, version_names_the_program) {
    const auto print = std::get<PrintCommand>(parse({"--version"}));
    EXPECT_EQ(print.exit_status, 0);
    EXPECT_TRUE(print.text.starts_with("dpdk-viommu ")) << print.text;
}

}  // namespace
}  // namespace viommu::app
