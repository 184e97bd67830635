// SPDX-License-Identifier: BSD-3-Clause
/// The most that one guest can be given: 65,536 domains, 16,777,216 mappings.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {
namespace {

using namespace guest;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kPage = 4096;

struct LargeGuest : testing::Test {
    void start(const std::string& config) {
        const auto begin = Clock::now();
        auto started = Daemon::start(config);
        ASSERT_TRUE(started) << started.error().message;
        daemon.emplace(std::move(*started));
        fmt::print("daemon ready after {:.2f} s\n", seconds_since(begin));
    }
    std::unique_ptr<IommuDriver> connect(const char* socket) {
        IommuOptions o;
        o.frontend.socket = daemon->path(socket);
        o.frontend.timeout = Milliseconds(60'000);
        o.request_queue_size = 1024;
        memory.push_back(std::move(*Memory::create(uint64_t{4} << 20)));
        auto driver = IommuDriver::start(*memory.back(), o);
        EXPECT_TRUE(driver) << driver.error().message;
        return driver ? std::move(*driver) : nullptr;
    }
    uint64_t counter(const std::string& name) {
        auto all = daemon->counters();
        EXPECT_TRUE(all) << all.error().message;
        EXPECT_TRUE(all->count(name)) << name;
        return (*all)[name];
    }
    static double seconds_since(Clock::time_point start) {
        return std::chrono::duration<double>(Clock::now() - start).count();
    }
    /// Of `count` requests, made by `make`, in batches; every answer is `expected`.
    template <class Make>
    void submit(IommuDriver& driver, const char* what, uint64_t count, Make make,
                Status expected = Status::kOk) {
        constexpr uint64_t kBatch = 512;
        std::vector<Request> batch(kBatch);
        std::vector<Answer> answers(kBatch);
        const auto begin = Clock::now();
        for (uint64_t i = 0; i < count; i += kBatch) {
            const uint64_t n = std::min(kBatch, count - i);
            for (uint64_t k = 0; k < n; ++k) batch[k] = make(i + k);
            driver.submit(std::span(batch).first(n), std::span(answers).first(n));
            for (uint64_t k = 0; k < n; ++k)
                ASSERT_EQ(answers[k], expected) << what << " " << i + k;
        }
        const double s = seconds_since(begin);
        fmt::print("{:<28} {:>9} in {:6.2f} s, {:.0f} ns each\n", what, count, s,
                   s * 1e9 / double(count));
    }
    void TearDown() override {
        if (!daemon) return;
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }

    std::vector<std::unique_ptr<Memory>> memory;
    std::optional<Daemon> daemon;
};

/// All at once: an endpoint for each, which is every function that one PCI segment can have.
TEST_F(LargeGuest, domains_65536_come_and_go_while_another_guest_goes_on) {
    constexpr uint32_t kDomains = 65536;
    std::string config =
        "poll = \"adaptive\"\n[[guest]]\nname = \"many\"\n"
        "socket = \"@DIR@/many.sock\"\nlcore = 1\nbypass = false\nmax_domains = 65536\n"
        "domain_range = { first = 0, last = 65536 }\narena = \"2G\"\nendpoint = [\n";
    for (uint32_t e = 0; e < kDomains; ++e)
        config +=
            fmt::format("{{ id = \"0000:{:02x}:{:02x}.{}\" }},\n", e >> 8, e >> 3 & 31, e & 7);
    config +=
        "]\n[[guest]]\nname = \"other\"\nsocket = \"@DIR@/other.sock\"\nlcore = 1\n"
        "bypass = false\n  [[guest.endpoint]]\n  id = \"0000:00:04.0\"\n";
    start(config);
    ASSERT_FALSE(HasFatalFailure());
    auto many = connect("many.sock"), other = connect("other.sock");
    ASSERT_TRUE(many && other);

    std::atomic<bool> stop{false};
    std::atomic<uint64_t> others{0};
    std::thread neighbour([&] {
        ASSERT_EQ(other->attach(1, 0x20), Status::kOk);
        const IovaRange range{{kPage}, {2 * kPage - 1}};
        while (!stop.load()) {
            ASSERT_EQ(other->map(1, range, Gpa{0}), Status::kOk);
            ASSERT_EQ(other->map(1, range, Gpa{0}), Status::kInval);
            ASSERT_EQ(other->unmap(1, range), Status::kOk);
            others.fetch_add(3);
        }
    });
    for (int round = 0; round < 2 && !HasFatalFailure(); ++round) {
        submit(*many, "ATTACH to a new domain", kDomains,
               [](uint64_t i) { return Request::attach(DomainId(i), EndpointId(i)); });
        submit(*many, "MAP in each", kDomains, [](uint64_t i) {
            return Request::map(DomainId(i), {{kPage}, {2 * kPage - 1}}, Gpa{i * kPage},
                                Access::kReadWrite);
        });
        EXPECT_EQ(counter("guest.many.table.domains"), kDomains);
        EXPECT_EQ(counter("guest.many.table.mappings"), kDomains);
        EXPECT_EQ(many->attach(kDomains, 0), Status::kOk) << "moves the only one of domain 0";
        EXPECT_EQ(many->attach(0, 0), Status::kOk) << "and back";
        submit(*many, "DETACH, the last of its domain", kDomains,
               [](uint64_t i) { return Request::detach(DomainId(i), EndpointId(i)); });
        EXPECT_EQ(counter("guest.many.table.domains"), 0u);
        EXPECT_EQ(counter("guest.many.table.mappings"), 0u);
    }
    stop.store(true);
    neighbour.join();
    fmt::print("the other guest had {} answers meanwhile\n", others.load());
    EXPECT_GT(others.load(), 100u);
}

/// A sixteenth of it, unless VIOMMU_MAPPINGS says how many.
TEST_F(LargeGuest, mappings_16777216_are_made_and_found) {
    constexpr uint64_t kMost = 16'777'216;
    constexpr uint64_t kAbove = uint64_t{1} << 32;  // the doorbells, which are reserved
    const char* given = std::getenv("VIOMMU_MAPPINGS");
    const uint64_t count = given != nullptr ? std::strtoull(given, nullptr, 0) : kMost / 16;
    start(fmt::format(
        "poll = \"adaptive\"\n[[guest]]\nname = \"vm0\"\nsocket = \"@DIR@/s\"\nlcore = 1\n"
        "bypass = false\nmax_mappings = {}\narena = \"256M\"\n"
        "  [[guest.endpoint]]\n  id = \"0000:00:04.0\"\n",
        count));
    ASSERT_FALSE(HasFatalFailure());
    auto driver = connect("s");
    ASSERT_TRUE(driver);
    ASSERT_EQ(driver->attach(1, 0x20), Status::kOk);
    const auto page = [](uint64_t i) {
        const uint64_t first = kAbove + i * kPage;
        return IovaRange{{first}, {first + kPage - 1}};
    };
    submit(*driver, "MAP of 4 KiB", count, [&](uint64_t i) {
        return Request::map(1, page(i), Gpa{(i ^ 0x5555) * kPage}, Access::kReadWrite);
    });
    EXPECT_EQ(counter("guest.vm0.table.mappings"), count);
    EXPECT_EQ(driver->map(1, page(count), Gpa{0}), Status::kNoMem) << "one above the quota";
    const uint64_t stride = std::max<uint64_t>(count / 65536, 1);
    submit(
        *driver, "MAP over one that is there", count / stride,
        [&](uint64_t i) { return Request::map(1, page(i * stride), Gpa{0}, Access::kRead); },
        Status::kInval);
    submit(*driver, "UNMAP of 4 KiB, every other", count / 2,
           [&](uint64_t i) { return Request::unmap(1, page(2 * i)); });
    EXPECT_EQ(counter("guest.vm0.table.mappings"), count - count / 2);
    EXPECT_EQ(driver->unmap(1, {{0}, {(uint64_t{1} << 48) - 1}}), Status::kOk);
    EXPECT_EQ(counter("guest.vm0.table.mappings"), 0u);
}

}  // namespace
}  // namespace viommu::e2e
