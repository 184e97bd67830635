// SPDX-License-Identifier: BSD-3-Clause
/// The benchmark's own arithmetic: what it prints is only as good as this.
#include <gtest/gtest.h>

#include "crew.hh"
#include "results.hh"
#include "translators.hh"

namespace viommu::perf {
namespace {

TEST(Stats, summary_of_a_permutation_has_nearest_ranks) {
    std::vector<double> samples;
    for (int i = 0; i < 101; ++i) samples.push_back(i * 37 % 101);
    const Summary s = summarize(samples);
    EXPECT_EQ(s.n, 101u);
    EXPECT_EQ(s.median, 50);
    EXPECT_EQ(s.p10, 10);
    EXPECT_EQ(s.p90, 90);
    EXPECT_EQ(s.min, 0);
    EXPECT_EQ(s.max, 100);
}

TEST(Stats, line_through_points_on_a_line_is_that_line) {
    const double x[] = {1, 45, 640}, y[] = {2.5, 37.7, 513.7};
    const Line line = fit_line(x, y);
    EXPECT_NEAR(line.a, 1.7, 1e-9);
    EXPECT_NEAR(line.b, 0.8, 1e-9);
}

TEST(Measure, subjects_are_sampled_in_turn_and_nobody_is_always_first) {
    std::string order;
    const auto subject = [&](char name) {
        return Subject{std::string(1, name), [&order, name] {
                           order += name;
                           return Sample{double(name)};
                       }};
    };
    Pace pace;
    pace.samples = 4;
    const auto measured = measure({subject('a'), subject('b'), subject('c')}, pace);
    EXPECT_EQ(order,
              "abc"
              "abc"
              "bca"
              "cab"
              "abc");  // the first are warm-up
    EXPECT_EQ(find(measured, "b").value.median, 'b');
    EXPECT_EQ(find(measured, "b").value.n, 4u);
    EXPECT_FALSE(find(measured, "b").cpu);
}

TEST(Measure, samples_end_with_the_time_but_not_before_three) {
    Pace pace;
    pace.samples = 1000;
    pace.seconds = 0;
    EXPECT_EQ(measure({{"x", [] { return Sample{1}; }}}, pace)[0].value.n, 3u);
}

TEST(Results, ratio_is_of_medians_and_of_cpu_time_where_there_is) {
    Table table{"t", "ns", {"size"}, {}, {}};
    const auto measured = [](const char* name, double value) {
        return Measured{name, summarize({value}), {}};
    };
    table.add({measured("ours", 5), measured("theirs", 20)}, {"64"}, "theirs");
    EXPECT_EQ(table.row("ours", {"64"}).ratio, 0.25);
    EXPECT_EQ(table.row("theirs", {"64"}).ratio, 1);
    auto a = measured("a", 100), b = measured("b", 100);
    a.cpu = summarize({30}), b.cpu = summarize({10});
    table.add({a, b}, {"1K"}, "b");
    EXPECT_EQ(table.row("a", {"1K"}).ratio, 3);
    EXPECT_EQ(ratio_text(0.25), "4.00x faster");
    EXPECT_EQ(ratio_text(3), "3.00x slower");
    EXPECT_EQ(ratio_text(1.001), "the same");
}

TEST(Results, json_has_every_row_with_its_parameters) {
    Results results;
    results.scenario = "s";
    results.tables.push_back({"t", "ns", {"size"}, {}, {}});
    results.tables[0].add({{"ours", summarize({1, 2, 3}), {}}}, {"64"});
    results.targets.push_back({"id", "what", "<= 1", "2", false});
    const auto json = as_json(results);
    const auto& row = json["tables"][0]["rows"][0];
    EXPECT_EQ(row["subject"], "ours");
    EXPECT_EQ(row["parameters"]["size"], "64");
    EXPECT_EQ(row["value"]["median"], 2.0);
    EXPECT_EQ(json["targets"][0]["met"], false);
}

TEST(Plot, picture_of_odd_values_is_finite_and_the_same_every_time) {
    Chart lines{"a < b & c", "x", "y", {}};
    lines.series = {{"ours", {{1, 2, 1, 3}, {1 << 20, INFINITY, 0, INFINITY}}},
                    {"theirs", {{1, 0, 0, 0}}, true}};
    Chart bars{"bars", "x", "y", {{"s", {{0, 5, 4, 6}}}}, {"one"}};
    const std::string svg = draw({lines, bars}, "caption");
    EXPECT_EQ(svg, draw({lines, bars}, "caption"));
    EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Crew, hands_work_until_they_are_stopped) {
    Clock::calibrate();
    const auto work = [](const std::atomic<bool>& stop) {
        uint64_t n = 0;
        do ++n;
        while (!stop.load());
        return n;
    };
    const unsigned cpu = describe_machine().cpus.front();
    const auto outcomes = run_together({{cpu, work}, {cpu, work}}, 20e6);
    for (const Outcome& o : outcomes) {
        EXPECT_GT(o.operations, 0u);
        EXPECT_GT(o.wall_ns, 0);
        EXPECT_GT(o.cpu_ns, 0);
    }
}

struct Translators : testing::TestWithParam<std::tuple<Pages, Order>> {};

TEST_P(Translators, all_give_the_same_answers_before_and_after_the_writer) {
    const auto [pages, order] = GetParam();
    const auto workload = Workload::make(512, pages, order);
    const uint64_t expected = expected_sum(workload);
    auto single = make_ours(workload, Way::kSingle);
    auto burst = make_ours(workload, Way::kBurst);
    auto walk = make_ours(workload, Way::kWalk);
    ASSERT_TRUE(single && burst && walk);
    std::unique_ptr<Translator> all[] = {std::move(*single), std::move(*burst), std::move(*walk),
                                         make_map(workload), make_list(workload)};
    for (auto& translator : all) {
        const auto lane = translator->lane();
        ASSERT_NE(lane, nullptr);
        EXPECT_EQ(lane->run(workload.stream), expected);
        for (uint64_t i = 0; i < 1000; ++i) translator->map_unmap(i);
        EXPECT_EQ(lane->run(workload.stream), expected);
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Translators,
                         testing::Combine(testing::Values(Pages::k4K, Pages::k2M, Pages::kMixed),
                                          testing::Values(Order::kSequential, Order::kRandom)));

}  // namespace
}  // namespace viommu::perf
