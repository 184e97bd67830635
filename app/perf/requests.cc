// SPDX-License-Identifier: BSD-3-Clause
/// `dpdk-viommu-perf requests`: a guest in user space, the daemon as a process of its own, and the
/// ring between them.
#include <fmt/format.h>

#include <algorithm>

#include "daemon_process.hh"
#include "options.hh"
#include "ping_pong.hh"
#include "reader_process.hh"
#include "syscalls.hh"
#include "viommu_guest.hh"
#include "workload.hh"

namespace viommu::perf {
namespace {

using guest::Answer;
using guest::DaemonProcess;
using guest::IommuDriver;
using guest::Request;

constexpr DomainId kDomain = 1;
constexpr EndpointId kEndpoint = 0x20;
constexpr const char* kEndpointText = "0000:00:04.0";
constexpr uint64_t kGuestPages = 4096;
/// Where the timed requests map: pages [kTimedFirst, kTimedFirst + kTimedPages).
constexpr uint64_t kTimedFirst = 1 << 20;
constexpr uint64_t kTimedPages = 4096;
/// What the reader asks about: mapped all the time.
constexpr uint64_t kReadFirst = kTimedFirst - 512, kReadPages = 64;
constexpr const char* kPingPong = "cache line ping-pong";

enum class Pattern : uint8_t {
    kStrict,    ///< a batch of MAPs; then each UNMAP alone, as a driver that waits for it
    kDeferred,  ///< a batch with the MAPs of new buffers and the UNMAPs of old ones
};

/// One pattern and size of batch, and what it took.
struct Case {
    Pattern pattern;
    unsigned batch;
    std::vector<double> map{}, unmap{}, mixed{};   ///< ns, with the guest's own work
    std::vector<double> map_ring{}, unmap_ring{};  ///< ns, from the signal to the last answer
    std::vector<double> per_second{};              ///< requests; one for each run
    uint64_t requests = 0;

    const char* pattern_text() const { return pattern == Pattern::kStrict ? "strict" : "deferred"; }
};

/// The guest's side.
class Requester {
  public:
    explicit Requester(IommuDriver& iommu) : iommu_(iommu), answers_(512) {}

    /// Ends early when something is answered otherwise than OK.
    Result<void> run(Case& c, double ns) {
        const uint64_t start = Clock::ticks(), end = start + Clock::ticks_in(ns);
        uint64_t requests = 0;
        do {
            auto done = c.pattern == Pattern::kStrict ? strict(c, end) : deferred(c);
            if (!done) return tl::unexpected(done.error());
            requests += *done;
        } while (Clock::ticks() < end);
        c.requests += requests;
        c.per_second.push_back(double(requests) / Clock::ns(Clock::ticks() - start) * 1e9);
        return {};
    }

    /// Before another case: nothing of the last one stays mapped.
    Result<void> tidy() {
        batch_.clear();
        for (const uint64_t page : pending_) batch_.push_back(unmap(page));
        pending_.clear();
        return batch_.empty() ? Result<void>{} : submit(batch_);
    }

  private:
    static IovaRange range(uint64_t page) {
        return *IovaRange::from_length({(kTimedFirst + page) * kPage}, kPage);
    }
    static Request map(uint64_t page) {
        return Request::map(kDomain, range(page), Gpa{page % kGuestPages * kPage},
                            Access::kReadWrite);
    }
    static Request unmap(uint64_t page) { return Request::unmap(kDomain, range(page)); }
    uint64_t next_page() { return next_++ % kTimedPages; }

    Result<void> submit(std::span<const Request> requests) {
        const auto answers = std::span(answers_).first(requests.size());
        for (Answer& a : answers) a.status.reset();
        iommu_.submit(requests, answers);
        for (const Answer& a : answers)
            if (!a.ok()) return fail("a request was answered {}", to_string(a));
        return {};
    }
    Result<void> timed(std::span<const Request> requests, std::vector<double>& times,
                       std::vector<double>& ring_times) {
        const uint64_t start = Clock::ticks();
        auto ok = submit(requests);
        times.push_back(Clock::ns(Clock::ticks() - start));
        ring_times.push_back(double(answers_[0].round_trip_ns));
        return ok;
    }

    /// At `end` the UNMAPs that are left are for tidy(): beside a reader on the same CPU each may
    /// take many milliseconds.
    Result<uint64_t> strict(Case& c, uint64_t end) {
        batch_.clear();
        const uint64_t first = next_;
        for (unsigned i = 0; i < c.batch; ++i) batch_.push_back(map(next_page()));
        if (auto ok = timed(batch_, c.map, c.map_ring); !ok) return tl::unexpected(ok.error());
        for (unsigned i = 0; i < c.batch; ++i) {
            if (i != 0 && Clock::ticks() > end) {
                while (i < c.batch) pending_.push_back((first + i++) % kTimedPages);
                return c.batch + (c.batch - pending_.size());
            }
            const Request request = unmap((first + i) % kTimedPages);
            if (auto ok = timed(std::span(&request, 1), c.unmap, c.unmap_ring); !ok)
                return tl::unexpected(ok.error());
        }
        return 2 * uint64_t{c.batch};
    }

    Result<uint64_t> deferred(Case& c) {
        batch_.clear();
        for (const uint64_t page : pending_) batch_.push_back(unmap(page));
        pending_.clear();
        while (batch_.size() < c.batch) {
            pending_.push_back(next_page());
            batch_.push_back(map(pending_.back()));
            if (pending_.size() == c.batch / 2) break;
        }
        // The first batch of a run has nothing to unmap: half as long, so not a sample.
        const bool whole = batch_.size() == c.batch;
        std::vector<double> ignored, ring;
        if (auto ok = timed(batch_, whole ? c.mixed : ignored, ring); !ok)
            return tl::unexpected(ok.error());
        return uint64_t(batch_.size());
    }

    IommuDriver& iommu_;
    std::vector<Request> batch_;
    std::vector<Answer> answers_;
    std::vector<uint64_t> pending_;
    uint64_t next_ = 0;
};

/// A busy daemon: its poller on the second CPU, everything else on the first.
std::string daemon_config(const Options& options) {
    return fmt::format(
        R"(
poll = "busy"
eal = ["--no-huge", "--no-shconf", "-m", "64", "--no-pci", "--file-prefix=viommu-perf-{}",
       "--lcores", "0@{},1@{}", "--main-lcore", "0"]
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
readers = "@DIR@/readers.sock"
  [[guest.endpoint]]
  id = "{}"
)",
        getpid(), options.cpu(0), options.cpu(1), kEndpointText);
}

struct Setup {
    std::unique_ptr<guest::Memory> memory;
    std::unique_ptr<IommuDriver> iommu;
};

Result<Setup> connect(const std::string& socket) {
    Setup s;
    auto memory = guest::Memory::create(kGuestPages * kPage);
    if (!memory) return tl::unexpected(memory.error());
    s.memory = std::move(*memory);
    guest::IommuOptions options;
    options.frontend.socket = socket;
    options.request_queue_size = 1024;  // two descriptors for each request
    auto iommu = IommuDriver::start(*s.memory, options);
    if (!iommu) return tl::unexpected(iommu.error());
    s.iommu = std::move(*iommu);
    if (auto answer = s.iommu->attach(kDomain, kEndpoint); !answer.ok())
        return fail("ATTACH was answered {}", to_string(answer));
    const auto read = *IovaRange::from_length({kReadFirst * kPage}, kReadPages * kPage);
    if (auto answer = s.iommu->map(kDomain, read, Gpa{0}); !answer.ok())
        return fail("MAP was answered {}", to_string(answer));
    return s;
}

/// What both sides asked of the kernel during requests of batch 1.
struct Kernel {
    bool known = false;
    uint64_t guest = 0, daemon = 0, requests = 0;
    /// The slice of the time that has fewest. A driver whose daemon is kept from its CPU by another
    /// process yields, and that is a system call; so on a busy machine some slices have many.
    uint64_t least = UINT64_MAX, least_requests = 0;
};

Result<Kernel> count_syscalls(Requester& requester, const DaemonProcess& daemon, double slice_ns) {
    constexpr int kSlices = 10;
    Kernel kernel;
    const auto own = SyscallCounter::open(0);
    const auto poller = SyscallCounter::open(daemon.poller());
    if (!own || !poller || daemon.poller() == 0) return kernel;
    kernel.known = true;
    for (int i = 0; i < kSlices; ++i) {
        Case c{Pattern::kStrict, 1};
        for (auto* times : {&c.map, &c.unmap, &c.map_ring, &c.unmap_ring})
            times->reserve(1 << 18);  // no memory is asked for meanwhile
        const uint64_t poller_before = poller->count(), before = own->count();
        if (auto ok = requester.run(c, slice_ns); !ok) return tl::unexpected(ok.error());
        const uint64_t after = own->count(), poller_after = poller->count();
        const uint64_t guest = after - before - 1;  // the counting itself
        const uint64_t calls = poller_after - poller_before;
        kernel.guest += guest, kernel.daemon += calls, kernel.requests += c.requests;
        if (guest + calls > kernel.least) continue;
        kernel.least = guest + calls, kernel.least_requests = c.requests;
    }
    return kernel;
}

Measured measured(const std::string& name, const std::vector<double>& samples) {
    return {name, summarize(samples), {}, tail_of(samples)};
}

constexpr const char* kMap = "MAP";
constexpr const char* kUnmap = "UNMAP";
constexpr const char* kMapRing = "MAP, from signal to answer";
constexpr const char* kUnmapRing = "UNMAP, from signal to answer";

Table round_trips(const std::vector<Case>& cases, const std::vector<double>& ping_pong,
                  const std::string& title) {
    Table table{
        title, "ns for a batch, the guest's own work included", {"pattern", "batch"}, {}, {}};
    for (const Case& c : cases) {
        std::vector<Measured> rows;
        const auto add = [&](const char* name, const std::vector<double>& samples) {
            if (!samples.empty()) rows.push_back(measured(name, samples));
        };
        const bool alone = c.pattern == Pattern::kStrict && c.batch == 1;
        add(alone ? kMap : "MAPs", c.map);
        if (alone) add(kMapRing, c.map_ring);
        add(alone ? kUnmap : "each UNMAP", c.unmap);
        if (alone) add(kUnmapRing, c.unmap_ring);
        add("MAPs and UNMAPs", c.mixed);
        const bool compare = alone && !ping_pong.empty();
        if (compare) rows.push_back(measured(kPingPong, ping_pong));
        table.add(rows, {c.pattern_text(), std::to_string(c.batch)}, compare ? kPingPong : "");
    }
    return table;
}

Table rates(const std::vector<Case>& cases, const std::string& title) {
    Table table{title, "thousand requests per second", {"pattern", "batch"}, {}, {}};
    for (const Case& c : cases) {
        std::vector<double> thousands;
        for (const double rate : c.per_second) thousands.push_back(rate / 1e3);
        table.add({{"MAP, UNMAP in turn", summarize(thousands), {}, {}}},
                  {c.pattern_text(), std::to_string(c.batch)});
    }
    return table;
}

Point point(double x, const Summary& s, double by = 1) {
    return {x, s.median / by, s.p10 / by, s.p90 / by};
}

void draw_charts(const std::vector<Case>& cases, const Table& trips, const Table& rates,
                 Results& results) {
    Chart one{"One request alone", "quantile", "ns", {}};
    one.labels = {"median", "p99", "p99.9"};
    for (const char* name : {kMap, kUnmap, kPingPong}) {
        const Measured& m = trips.row(name, {"strict", "1"}).measured;
        Series series{name, {}, std::string(name) == kPingPong};
        series.points.push_back(point(0, m.value));
        for (const double v : {m.tail->p99, m.tail->p999}) series.points.push_back({0, v, v, v});
        one.series.push_back(std::move(series));
    }
    results.charts.push_back(std::move(one));

    Chart each{
        "What a request takes, by size of the batch", "requests in a batch", "ns per request", {}};
    Series maps{"MAPs", {}}, mixed{"MAPs and UNMAPs", {}}, unmaps{"UNMAP, each alone", {}};
    Chart rate{"Requests per second", "requests in a batch", "thousand per second", {}};
    rate.log_y = false;
    Series strict{"strict: UNMAPs alone", {}}, deferred{"deferred: UNMAPs in batches", {}};
    for (const Case& c : cases) {
        const std::vector<std::string> parameters{c.pattern_text(), std::to_string(c.batch)};
        const Summary thousands = rates.row("MAP, UNMAP in turn", parameters).measured.value;
        if (c.pattern == Pattern::kStrict) {
            maps.points.push_back(point(c.batch, summarize(c.map), c.batch));
            unmaps.points.push_back(point(c.batch, summarize(c.unmap)));
            strict.points.push_back(point(0, thousands));
            rate.labels.push_back(std::to_string(c.batch));
            if (c.batch == 1) deferred.points.push_back({});
        } else {
            mixed.points.push_back(point(c.batch, summarize(c.mixed), c.batch));
            deferred.points.push_back(point(0, thousands));
        }
    }
    each.series = {maps, unmaps, mixed};
    rate.series = {strict, deferred};
    results.charts.push_back(std::move(each));
    results.charts.push_back(std::move(rate));
}

void judge(const Table& trips, const Kernel& kernel, Results& results) {
    const auto row = [&](const char* name) -> const Row& {
        return trips.row(name, {"strict", "1"});
    };
    const double worst = std::max(row(kMapRing).ratio, row(kUnmapRing).ratio);
    const std::string calls = kernel.known ? fmt::format("{} system calls in {} requests",
                                                         kernel.least, kernel.least_requests)
                                           : "system calls: not known here";
    results.targets.push_back(
        {"requests.round_trip", "request round trip through the ring, batch 1",
         "<= 5x a cache line ping-pong; no system call on either side",
         fmt::format("MAP {:.1f}x, UNMAP {:.1f}x of {} ns (with the guest's own work {:.1f}x, "
                     "{:.1f}x); {}",
                     row(kMapRing).ratio, row(kUnmapRing).ratio,
                     number_text(row(kPingPong).measured.value.median), row(kMap).ratio,
                     row(kUnmap).ratio, calls),
         worst <= 5 && kernel.known && kernel.least == 0});
}

/// All patterns and batches in turn, and the ping-pong between them, `rounds` times.
Result<std::vector<Case>> time_requests(const Options& options, Requester& requester,
                                        const DaemonProcess& daemon, unsigned rounds,
                                        double slice_ns, bool beside_reader,
                                        std::vector<double>& ping_pong) {
    std::vector<Case> cases;
    const bool few = beside_reader && options.pace.quick;
    for (const unsigned batch : {1u, 8u, 32u, 256u})
        if (!few || batch == 1) cases.push_back({Pattern::kStrict, batch});
    for (const unsigned batch : {8u, 32u, 256u})
        if (!few || batch == 8) cases.push_back({Pattern::kDeferred, batch});
    PingPong pair(options.cpu(1));
    for (unsigned round = 0; round <= rounds; ++round) {
        daemon.pause();  // the partner needs its CPU
        for (int i = 0; i < 5 && !beside_reader; ++i) ping_pong.push_back(pair.measure(2000));
        daemon.resume();
        for (size_t i = 0; i < cases.size(); ++i) {
            Case& c = cases[(i + round) % cases.size()];
            if (auto ok = requester.run(c, slice_ns); !ok) return tl::unexpected(ok.error());
            if (auto ok = requester.tidy(); !ok) return tl::unexpected(ok.error());
            if (round == 0) c = {c.pattern, c.batch};  // warm-up
        }
        if (round == 0) ping_pong.clear();
    }
    return cases;
}

/// The same, while another process translates at full rate. On two CPUs it takes turns with the
/// guest: an UNMAP may find it inside a section and without a CPU.
Result<void> beside_a_reader(const Options& options, Requester& requester,
                             const DaemonProcess& daemon, unsigned rounds, double slice_ns,
                             Results& results) {
    auto reader = ReaderProcess::start(daemon.path("readers.sock"), kEndpoint,
                                       Iova{kReadFirst * kPage}, kReadPages, options.cpu(2));
    if (!reader) return tl::unexpected(reader.error());
    std::vector<double> ping_pong;
    const uint64_t before = reader->translations(), start = Clock::ticks();
    auto cases = time_requests(options, requester, daemon, rounds, slice_ns, true, ping_pong);
    if (!cases) return tl::unexpected(cases.error());
    const double seconds = Clock::ns(Clock::ticks() - start) / 1e9;
    const uint64_t done = reader->translations() - before;
    if (done == 0) return fail("the reader process translated nothing");
    if (reader->faults() != 0) return fail("{} translations were faults", reader->faults());
    Table trips = round_trips(*cases, ping_pong,
                              "round trips through the ring, a reader process at full rate");
    trips.notes.push_back(
        fmt::format("the reader did {:.1f} million translations per second, in "
                    "bursts of 32",
                    double(done) / seconds / 1e6));
    if (options.cpus.size() < 3)
        trips.notes.push_back(fmt::format(
            "3 threads on {} cores: time-sliced; guest and reader share one, and a wait can last "
            "until the reader runs again",
            options.cpus.size()));
    report(results, std::move(trips));
    report(results, rates(*cases, "requests through the ring, a reader process at full rate"));
    return {};
}

}  // namespace

Result<void> run_requests(const Options& options, Results& results) {
    const auto program = DaemonProcess::find(options.daemon);
    if (!program) return tl::unexpected(program.error());
    auto daemon = DaemonProcess::start(*program, daemon_config(options), options.cpus);
    if (!daemon) return tl::unexpected(daemon.error());
    auto setup = connect(daemon->path("iommu.sock"));
    if (!setup) return tl::unexpected(setup.error());
    Requester requester(*setup->iommu);

    const double slice_ns = options.pace.quick ? 3e6 : 20e6;
    const unsigned rounds =
        options.pace.quick ? 3 : unsigned(std::max(3.0, options.pace.seconds * 1e9 / slice_ns / 8));
    std::vector<double> ping_pong;
    auto cases = time_requests(options, requester, *daemon, rounds, slice_ns, false, ping_pong);
    if (!cases) return tl::unexpected(cases.error());
    const auto kernel = count_syscalls(requester, *daemon, slice_ns);
    if (!kernel) return tl::unexpected(kernel.error());
    Table trips = round_trips(*cases, ping_pong, "round trips through the ring, no reader");
    Table per_second = rates(*cases, "requests through the ring, no reader");
    trips.notes.push_back(
        kernel->known
            ? fmt::format("system calls during {} requests, one at a time: {} of the guest, {} of "
                          "the daemon's poller; in the quietest tenth of the time {} of both",
                          kernel->requests, kernel->guest, kernel->daemon, kernel->least)
            : "system calls: not counted, the kernel does not allow it (it takes root and "
              "tracefs)");
    if (options.cpus.size() < 2)
        trips.notes.push_back("guest and daemon share a CPU: time-sliced, of no use as figures");
    judge(trips, *kernel, results);
    draw_charts(*cases, trips, per_second, results);
    report(results, std::move(trips));
    report(results, std::move(per_second));
    return beside_a_reader(options, requester, *daemon, options.pace.quick ? 1 : rounds / 2,
                           slice_ns, results);
}

}  // namespace viommu::perf
