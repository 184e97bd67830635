// SPDX-License-Identifier: BSD-3-Clause
/// One daemon, 256 guests: each gets its own answers, whatever the others do, and in time.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {
namespace {

using namespace guest;
using Clock = std::chrono::steady_clock;

constexpr unsigned kGuests = 256;
constexpr EndpointId kEndpoint = 0x20;
constexpr uint64_t kPage = 4096;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Guests alternate between two lcores; all else is what an operator gets who says nothing.
std::string config_of(unsigned guests, const std::string& more_of_first = "") {
    std::string text = "poll = \"adaptive\"\n";
    for (unsigned g = 0; g < guests; ++g)
        text += fmt::format(
            "[[guest]]\nname = \"vm{0}\"\nsocket = \"@DIR@/{0}.sock\"\nlcore = {1}\n"
            "bypass = false\n{2}  [[guest.endpoint]]\n  id = \"0000:00:04.0\"\n",
            g, 1 + g % 2, g == 0 ? more_of_first : "");
    return text;
}

/// Resident memory, with that of the process alone and that of arenas and guests, and descriptors.
std::string resources_of(pid_t pid) {
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    std::string out;
    for (std::string word; status >> word;)
        if (uint64_t kib;
            (word == "VmRSS:" || word == "RssAnon:" || word == "RssShmem:") && status >> kib)
            out += fmt::format("{} {:.1f} MiB  ", word, double(kib) / 1024);
    const std::filesystem::directory_iterator fds(fmt::format("/proc/{}/fd", pid));
    return out + fmt::format("{} fds", std::distance(begin(fds), end(fds)));
}

IovaRange pages(uint64_t first, uint64_t n) {
    return *IovaRange::from_length({first * kPage}, n * kPage);
}

/// A guest that knows what the answers must be.
class Tenant {
  public:
    Tenant(const Daemon& daemon, unsigned number) : number_(number), rng_(number) {
        options_.frontend.socket = daemon.path(fmt::format("{}.sock", number));
        options_.frontend.vmm = number % 3 == 0 ? Vmm::kQemu : Vmm::kCloudHypervisor;
        options_.frontend.timeout = Milliseconds(60'000);
        options_.request_queue_size = 512;
        options_.event_queue_size = options_.event_buffers = 4;
    }

    /// A new VM: it finds nothing of the one before, and has a domain of its own afterwards.
    void boot() {
        memory_ = std::move(*Memory::create(uint64_t{1} << 20));
        auto started = IommuDriver::start(*memory_, options_);
        ASSERT_TRUE(started) << number_ << ": " << started.error().message;
        driver_ = std::move(*started);
        mapped_.clear();
        ASSERT_EQ(driver_->map(domain(), pages(1, 1), Gpa{0}), Status::kNoEnt) << number_;
        ASSERT_EQ(driver_->attach(domain(), kEndpoint), Status::kOk) << number_;
    }
    void vanish() {
        driver_.reset();
        memory_.reset();
    }
    /// A few dozen random requests in one batch, all answers compared.
    void work() {
        constexpr unsigned kBatch = 48, kPages = 128;
        std::vector<Request> requests;
        std::vector<Status> expected;
        for (unsigned i = 0; i < kBatch; ++i) {
            const uint64_t page = 1 + rng_() % kPages;
            if (rng_() % 3 != 0) {
                requests.push_back(
                    Request::map(domain(), pages(page, 1), Gpa{page * kPage}, Access::kReadWrite));
                expected.push_back(mapped_.insert(page).second ? Status::kOk : Status::kInval);
            } else {
                requests.push_back(Request::unmap(domain(), pages(page, 4)));
                mapped_.erase(mapped_.lower_bound(page), mapped_.lower_bound(page + 4));
                expected.push_back(Status::kOk);
            }
        }
        std::vector<Answer> answers(requests.size());
        driver_->submit(requests, answers);
        for (size_t i = 0; i < answers.size(); ++i)
            ASSERT_EQ(answers[i], expected[i]) << "guest " << number_ << " request " << i;
    }
    /// One MAP and its UNMAP, one by one; the time of both.
    uint64_t round_trips_ns() {
        const auto map = driver_->map(domain(), pages(4096, 1), Gpa{0});
        const auto unmap = driver_->unmap(domain(), pages(4096, 1));
        EXPECT_EQ(map, Status::kOk) << number_;
        EXPECT_EQ(unmap, Status::kOk) << number_;
        return map.round_trip_ns + unmap.round_trip_ns;
    }

    IommuDriver& driver() { return *driver_; }
    DomainId domain() const { return 1 + number_ % 7; }
    size_t mappings() const { return mapped_.size(); }

  private:
    const unsigned number_;
    IommuOptions options_;
    std::mt19937 rng_;
    std::unique_ptr<Memory> memory_;
    std::unique_ptr<IommuDriver> driver_;
    std::set<uint64_t> mapped_;
};

std::vector<std::unique_ptr<Tenant>> tenants_of(const Daemon& daemon) {
    std::vector<std::unique_ptr<Tenant>> tenants;
    for (unsigned g = 0; g < kGuests; ++g) tenants.push_back(std::make_unique<Tenant>(daemon, g));
    return tenants;
}

/// With the limit of descriptors that a shell or systemd usually gives, which is too low.
Result<Daemon> start_with_usual_limit() {
    rlimit ours{};
    getrlimit(RLIMIT_NOFILE, &ours);
    const rlimit usual{std::min<rlim_t>(1024, ours.rlim_max), ours.rlim_max};
    setrlimit(RLIMIT_NOFILE, &usual);
    auto daemon = Daemon::start(config_of(kGuests));
    ours.rlim_cur = ours.rlim_max;  // for the guests, which are all in this process
    setrlimit(RLIMIT_NOFILE, &ours);
    return daemon;
}

TEST(ManyGuests, each_of_256_gets_its_own_answers_while_others_leave_and_return) {
    const auto begin = Clock::now();
    auto daemon = start_with_usual_limit();
    ASSERT_TRUE(daemon) << daemon.error().message;
    fmt::print("start      {:.0f} ms  {}\n", ms_since(begin), resources_of(daemon->pid()));
    auto tenants = tenants_of(*daemon);
    const auto connecting = Clock::now();
    for (auto& t : tenants) {
        t->boot();
        ASSERT_FALSE(HasFatalFailure());
    }
    fmt::print("connected  {:.0f} ms  {}\n", ms_since(connecting), resources_of(daemon->pid()));

    // Every fourth comes and goes; the others work.
    const auto working = Clock::now();
    std::atomic<bool> done{false};
    std::atomic<unsigned> reboots{0};
    std::thread restless([&] {
        for (unsigned round = 0; round < 3; ++round)
            for (unsigned g = 3; g < kGuests; g += 4) {
                tenants[g]->vanish();
                tenants[g]->boot();
                if (HasFatalFailure()) break;
                tenants[g]->work();
                reboots.fetch_add(1);
            }
        done.store(true);
    });
    unsigned rounds = 0;
    do {
        for (unsigned g = 0; g < kGuests && !HasFatalFailure(); ++g)
            if (g % 4 != 3) tenants[g]->work();
        ++rounds;
    } while (!HasFatalFailure() && (!done.load() || rounds < 3));
    restless.join();
    ASSERT_FALSE(HasFatalFailure());
    fmt::print("worked     {:.0f} ms  {}: {} reboots, {} rounds of the others\n", ms_since(working),
               resources_of(daemon->pid()), reboots.load(), rounds);

    auto counters = daemon->counters();
    ASSERT_TRUE(counters) << counters.error().message;
    for (unsigned g = 0; g < kGuests; ++g) {
        EXPECT_EQ((*counters)[fmt::format("guest.vm{}.table.mappings", g)], tenants[g]->mappings())
            << g;
        EXPECT_EQ((*counters)[fmt::format("guest.vm{}.table.domains", g)], 1u) << g;
    }
    for (auto& t : tenants) t->vanish();
    const auto stopped = daemon->stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
}

struct Times {
    uint64_t median_us, p99_us, worst_us;
};

Times measure(std::vector<std::unique_ptr<Tenant>>& tenants, unsigned rounds) {
    std::vector<uint64_t> ns;
    for (unsigned r = 0; r < rounds; ++r)
        for (unsigned g = 2; g < kGuests; g += 2) ns.push_back(tenants[g]->round_trips_ns());
    std::ranges::sort(ns);
    return {ns[ns.size() / 2] / 2000, ns[ns.size() * 99 / 100] / 2000, ns.back() / 2000};
}

/// The costliest requests there are: a range whose ends are a page within all of the address space
/// has an entry in nearly every slot of two nodes per level. A ring full of MAPs and UNMAPs of it,
/// again and again, while the others of that lcore take the time of their round trips.
TEST(ManyGuests, full_ring_of_costly_requests_starves_nobody) {
    auto daemon = start_with_usual_limit();
    ASSERT_TRUE(daemon) << daemon.error().message;
    auto tenants = tenants_of(*daemon);
    for (auto& t : tenants) {
        t->boot();
        ASSERT_FALSE(HasFatalFailure());
    }
    const Times quiet = measure(tenants, 4);

    std::atomic<bool> stop{false};
    std::atomic<uint64_t> costly{0};
    std::thread hostile([&] {
        auto& driver = tenants[0]->driver();
        std::vector<Request> requests;
        // Above the doorbells, which are reserved.
        const IovaRange most{{(uint64_t{1} << 32) + kPage}, {(uint64_t{1} << 48) - kPage - 1}};
        for (unsigned i = 0; i < 256; i += 2) {
            requests.push_back(
                Request::map(tenants[0]->domain(), most, Gpa{0}, Access::kReadWrite));
            requests.push_back(Request::unmap(tenants[0]->domain(), most));
        }
        std::vector<Answer> answers(requests.size());
        while (!stop.load()) {
            driver.submit(requests, answers);
            for (const auto& a : answers) ASSERT_EQ(a, Status::kOk);
            costly.fetch_add(answers.size());
        }
    });
    while (costly.load() == 0 && !HasFatalFailure()) std::this_thread::yield();
    const uint64_t before = costly.load();
    const auto start = Clock::now();
    const Times loaded = measure(tenants, 4);
    const double ms = ms_since(start);
    const uint64_t served = costly.load() - before;
    stop.store(true);
    hostile.join();
    fmt::print(
        "round trip of 127 neighbours, us: quiet median {} p99 {} worst {}; beside {:.0f} of "
        "the costliest requests a second: median {} p99 {} worst {}\n",
        quiet.median_us, quiet.p99_us, quiet.worst_us, double(served) * 1000 / ms, loaded.median_us,
        loaded.p99_us, loaded.worst_us);
    EXPECT_GT(served, 0u) << "it is served, too";
    // Who comes waits for the pass under way, at most 256 requests, and perhaps for the next; the
    // rest is what a loaded machine adds.
    const double pass_us = served == 0 ? 0 : 256'000 * ms / double(served);
    EXPECT_LT(double(loaded.median_us), 4 * double(quiet.median_us) + 5000 + 2 * pass_us);
}

}  // namespace
}  // namespace viommu::e2e
