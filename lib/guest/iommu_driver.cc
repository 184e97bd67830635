// SPDX-License-Identifier: BSD-3-Clause
#include "iommu_driver.hh"

#include <algorithm>
#include <numeric>

#include "eventfd.hh"

namespace viommu::guest {

using namespace wire;

namespace {

using Clock = std::chrono::steady_clock;

/// A request's bytes and its tail, each in a cache line of its own.
constexpr uint64_t kSlotBytes = 128;
constexpr uint64_t kTailOffset = 64;
constexpr uint32_t kTailBytes = sizeof(virtio_iommu_req_tail);
static_assert(sizeof(Request::out) <= kTailOffset);

constexpr uint64_t kEventSlotBytes = 32;
static_assert(sizeof(virtio_iommu_fault) <= kEventSlotBytes);

uint64_t ns_since(Clock::time_point start) {
    return uint64_t(std::chrono::nanoseconds(Clock::now() - start).count());
}

template <class T>
T read_from(const DmaBlock& block, uint64_t offset) {
    T value;
    block.read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
}

template <class T>
void zero(const DmaBlock& block, uint64_t offset) {
    const T value{};
    block.write(offset, std::as_bytes(std::span(&value, 1)));
}

std::optional<Status> status_of(uint32_t used_bytes, const virtio_iommu_req_tail& tail) {
    return used_bytes == 0 ? std::nullopt : std::optional(Status(tail.status));
}

/// Lengths of the segments of a part of `bytes`.
std::vector<uint32_t> cut(uint32_t bytes, std::span<const uint32_t> cuts, uint32_t piece_bytes) {
    std::vector<uint32_t> lengths;
    const auto piece = [&](uint32_t n) {
        for (; piece_bytes != 0 && n > piece_bytes; n -= piece_bytes)
            lengths.push_back(piece_bytes);
        if (n != 0) lengths.push_back(n);
    };
    uint32_t done = 0;
    for (const uint32_t at : cuts) {
        if (at <= done || at >= bytes) continue;
        piece(at - done);
        done = at;
    }
    piece(bytes - done);
    return lengths;
}

std::vector<uint32_t> cut_out(const RequestLayout& layout, uint32_t bytes) {
    return cut(bytes, layout.cut_out, layout.piece_bytes);
}
std::vector<uint32_t> cut_in(const RequestLayout& layout, uint32_t bytes) {
    return cut(bytes, layout.cut_in, layout.piece_bytes);
}

/// Segments of these lengths, one behind the other.
void append_segments(std::vector<Segment>& segments, BusAddress at,
                     std::span<const uint32_t> lengths) {
    for (const uint32_t bytes : lengths) {
        segments.push_back({at, bytes});
        at = at + bytes;
    }
}

/// Descriptors of the longest request of fixed size.
size_t longest_request(const RequestLayout& layout) {
    return cut_out(layout, sizeof(virtio_iommu_req_map)).size() +
           cut_in(layout, sizeof(virtio_iommu_req_tail)).size();
}

}  // namespace

IommuDriver::IommuDriver(Memory& memory, const IommuOptions& options)
    : memory_(memory), options_(options), dma_(memory) {}

IommuDriver::~IommuDriver() {
    frontend_.disconnect();
    for (const auto* block :
         {&request_ring_, &event_ring_, &request_slots_, &event_slots_, &request_tables_})
        release_block(memory_, *block);
}

Result<std::unique_ptr<IommuDriver>> IommuDriver::start(Memory& memory,
                                                        const IommuOptions& options) {
    std::unique_ptr<IommuDriver> driver(new IommuDriver(memory, options));
    driver->options_.frontend.queues = options.event_queue ? 2 : 1;
    // Its rings are GPAs, whatever the VMM knows about those of the endpoints.
    driver->options_.frontend.ring_addresses = RingAddresses::kUva;
    auto frontend = Frontend::connect(driver->options_.frontend);
    if (!frontend) return tl::unexpected(frontend.error());
    driver->frontend_ = std::move(*frontend);
    if (auto ok = driver->read_config_and_negotiate(); !ok) return tl::unexpected(ok.error());
    if (auto ok = driver->make_queues(); !ok) return tl::unexpected(ok.error());
    if (auto ok = driver->activate({}); !ok) return tl::unexpected(ok.error());
    return driver;
}

Result<void> IommuDriver::read_config_and_negotiate() {
    acked_ = frontend_.features() & options_.features;
    const uint64_t lacks = options_.required & ~acked_;
    if (lacks != 0)
        return fail("{}: features {:#x} lack {:#x}, which this driver needs",
                    options_.frontend.socket, frontend_.features(), lacks);
    return frontend_.read_config(0, std::as_writable_bytes(std::span(&config_, 1)));
}

Result<void> IommuDriver::make_queues() {
    const RingFormat format = RingFormat::of(acked_);
    const uint16_t events = options_.event_queue_size;
    if (!DriverQueue::is_size(events, format))
        return fail("event queue: {} entries are not possible", events);
    struct Wanted {
        DmaBlock& block;
        uint64_t bytes;
    };
    const Wanted wanted[] = {
        {event_ring_, DriverQueue::ring_bytes(events, format)},
        {event_slots_, events * kEventSlotBytes},
    };
    for (const auto& w : wanted) {
        auto block = dma_.allocate(w.bytes);
        if (!block) return tl::unexpected(block.error());
        w.block = std::move(*block);
    }
    for (Fd* fd : {&request_kick_, &request_call_, &event_kick_, &event_call_}) {
        auto made = make_eventfd();
        if (!made) return tl::unexpected(made.error());
        *fd = std::move(*made);
    }
    return make_request_queue(options_.request_queue_size);
}

/// Memory for a request queue of `size` entries, and for its requests.
Result<void> IommuDriver::make_request_queue(uint16_t size) {
    const RingFormat format = RingFormat::of(acked_);
    if (!DriverQueue::is_size(size, format))
        return fail("request queue: {} entries are not possible", size);
    requests_.reset();
    for (DmaBlock* block : {&request_ring_, &request_slots_})
        release_block(memory_, std::exchange(*block, {}));
    auto ring = dma_.allocate(DriverQueue::ring_bytes(size, format));
    if (!ring) return tl::unexpected(ring.error());
    request_ring_ = std::move(*ring);
    auto slots = dma_.allocate(size * kSlotBytes);
    if (!slots) return tl::unexpected(slots.error());
    request_slots_ = std::move(*slots);
    options_.request_queue_size = size;
    return set_layout(options_.layout);
}

Result<void> IommuDriver::set_layout(const RequestLayout& layout) {
    options_.layout = layout;
    release_block(memory_, std::exchange(request_tables_, {}));
    if (!layout.indirect) return {};
    if ((acked_ & bit(VIRTIO_F_INDIRECT_DESC)) == 0)
        return fail("request queue: the device does not offer INDIRECT_DESC, or it was refused");
    const size_t probe = cut_out(layout, sizeof(virtio_iommu_req_probe)).size() +
                         cut_in(layout, config_.probe_size + kTailBytes).size();
    const auto longest = uint32_t(std::max(longest_request(layout), probe));
    auto tables =
        dma_.allocate(DriverQueue::indirect_bytes(options_.request_queue_size, longest));
    if (!tables) return tl::unexpected(tables.error());
    request_tables_ = std::move(*tables);
    if (requests_) requests_->use_indirect(request_tables_, longest);
    longest_table_ = longest;
    return {};
}

/// An empty queue in request_ring_.
void IommuDriver::begin_request_queue() {
    for (std::byte* page : request_ring_.data) std::fill_n(page, kPageBytes, std::byte{0});
    requests_.emplace(request_ring_, options_.request_queue_size, request_kick_.get(),
                      RingFormat::of(acked_));
    if (options_.layout.indirect) requests_->use_indirect(request_tables_, longest_table_);
    requests_->want_interrupts(false);
}

Result<void> IommuDriver::activate(std::optional<uint32_t> base) {
    begin_request_queue();
    for (std::byte* page : event_ring_.data) std::fill_n(page, kPageBytes, std::byte{0});
    events_.emplace(event_ring_, options_.event_queue_size, event_kick_.get(),
                    RingFormat::of(acked_));
    events_->want_interrupts(false);
    const uint16_t buffers = std::min(options_.event_buffers, options_.event_queue_size);
    if (auto ok = frontend_.activate(acked_, memory_, queue_setups(base)); !ok) return ok;
    for (uint16_t i = 0; i < buffers; ++i) stock_event(i);
    if (options_.event_queue) events_->kick();
    return {};
}

QueueSetup IommuDriver::request_setup(std::optional<uint32_t> base) const {
    return {VIRTIO_IOMMU_VQ_REQUEST, requests_->size(),   requests_->desc(),   requests_->avail(),
            requests_->used(),       request_kick_.get(), request_call_.get(), base};
}

std::vector<QueueSetup> IommuDriver::queue_setups(std::optional<uint32_t> base) const {
    std::vector<QueueSetup> queues{request_setup(base)};
    if (options_.event_queue)
        queues.push_back({VIRTIO_IOMMU_VQ_EVENT,
                          events_->size(),
                          events_->desc(),
                          events_->avail(),
                          events_->used(),
                          event_kick_.get(),
                          event_call_.get(),
                          {}});
    return queues;
}

Result<void> IommuDriver::stop() {
    if (auto bases = frontend_.reset(); !bases) return tl::unexpected(bases.error());
    return {};
}

Result<void> IommuDriver::reset() {
    if (auto ok = stop(); !ok) return ok;
    return activate({});
}

Result<void> IommuDriver::reconnect(std::optional<uint32_t> base) {
    if (auto ok = frontend_.reconnect(); !ok) return ok;
    if (auto ok = frontend_.activate(acked_, memory_, queue_setups(base)); !ok) return ok;
    requests_->kick();
    if (options_.event_queue) events_->kick();
    return {};
}

/// QEMU starts the notifiers anew and signals each; Cloud Hypervisor signals nothing.
Result<void> IommuDriver::resume() {
    if (auto ok = frontend_.resume(); !ok) return ok;
    if (options_.frontend.vmm != Vmm::kQemu) return {};
    signal_eventfd(request_kick_.get());
    if (options_.event_queue) signal_eventfd(event_kick_.get());
    return {};
}

Result<uint32_t> IommuDriver::reset_request_queue(uint16_t size) {
    const auto base = frontend_.stop_queue(VIRTIO_IOMMU_VQ_REQUEST);
    if (!base) return base;
    if (auto ok = make_request_queue(size); !ok) return tl::unexpected(ok.error());
    begin_request_queue();
    if (auto ok = frontend_.start_queue(request_setup({})); !ok) return tl::unexpected(ok.error());
    return base;
}

IovaRange IommuDriver::input_range() const {
    if ((acked_ & bit(VIRTIO_IOMMU_F_INPUT_RANGE)) == 0) return {Iova{0}, Iova{UINT64_MAX}};
    return {Iova{config_.input_range.start}, Iova{config_.input_range.end}};
}

Result<void> IommuDriver::set_bypass(bool bypass) {
    const std::byte value{uint8_t(bypass)};
    return frontend_.write_config(offsetof(virtio_iommu_config, bypass), std::span(&value, 1));
}

Answer IommuDriver::attach(DomainId domain, EndpointId endpoint, uint32_t flags) {
    return submit(Request::attach(domain, endpoint, flags));
}
Answer IommuDriver::detach(DomainId domain, EndpointId endpoint) {
    return submit(Request::detach(domain, endpoint));
}
Answer IommuDriver::map(DomainId domain, IovaRange range, Gpa gpa, Access access) {
    return submit(Request::map(domain, range, gpa, access));
}
Answer IommuDriver::unmap(DomainId domain, IovaRange range) {
    return submit(Request::unmap(domain, range));
}

Answer IommuDriver::submit(const Request& request) {
    Answer answer;
    submit(std::span(&request, 1), std::span(&answer, 1));
    return answer;
}

void IommuDriver::submit(std::span<const Request> requests, std::span<Answer> answers) {
    const size_t each = options_.layout.indirect ? 1 : longest_request(options_.layout);
    const size_t most = std::max<size_t>(requests_->size() / each, 1);
    bool usable = true;
    while (!requests.empty()) {
        const size_t n = std::min(requests.size(), most);
        if (usable)
            usable = submit_batch(requests.first(n), answers.first(n));
        else
            for (auto& answer : answers.first(n)) answer.trouble = "not sent after earlier trouble";
        requests = requests.subspan(n);
        answers = answers.subspan(n);
    }
}

/// False: there was trouble, and every answer says so.
bool IommuDriver::submit_batch(std::span<const Request> requests, std::span<Answer> answers) {
    const auto trouble = [&](const std::string& why) {
        for (auto& answer : answers)
            if (!answer.status) answer.trouble = why;
        return false;
    };
    const RequestLayout& layout = options_.layout;
    for (size_t i = 0; i < requests.size(); ++i) {
        const uint64_t at = i * kSlotBytes;
        request_slots_.write(at, std::span(requests[i].out).first(requests[i].out_bytes));
        zero<virtio_iommu_req_tail>(request_slots_, at + kTailOffset);
        const BusAddress bus = request_slots_.bus + at;
        readable_.clear();
        writable_.clear();
        if (layout.plain()) {
            readable_.push_back({bus, requests[i].out_bytes});
            writable_.push_back({bus + kTailOffset, kTailBytes});
        } else {
            append_segments(readable_, bus, cut_out(layout, requests[i].out_bytes));
            append_segments(writable_, bus + kTailOffset, cut_in(layout, kTailBytes));
        }
        if (!add_request(readable_, writable_, i))
            return trouble(no_room(readable_.size() + writable_.size()));
    }
    const auto start = Clock::now();
    requests_->kick();
    for (size_t answered = 0; answered < requests.size(); ++answered) {
        const auto done = wait_for_request();
        if (!done) return trouble(done.error().message);
        if (done->token >= requests.size()) return trouble("an older request was answered late");
        const uint64_t tail = done->token * kSlotBytes + kTailOffset;
        Answer& answer = answers[done->token];
        answer.status =
            status_of(done->bytes, read_from<virtio_iommu_req_tail>(request_slots_, tail));
    }
    const uint64_t ns = ns_since(start);
    for (size_t i = 0; i < requests.size(); ++i) {
        answers[i].round_trip_ns = ns;
        round_trips_[requests[i].type()].add(ns);
    }
    return true;
}

bool IommuDriver::add_request(std::span<const Segment> readable, std::span<const Segment> writable,
                              uint64_t token) {
    return options_.layout.indirect ? requests_->add_indirect(readable, writable, token)
                                    : requests_->add(readable, writable, token);
}

std::string IommuDriver::no_room(size_t segments) const {
    return fmt::format(
        "request queue: no room for {} segments: {} of {} descriptors are free, {} requests were "
        "never answered",
        segments, requests_->free_descriptors(), requests_->size(), requests_->in_flight());
}

Result<Completion> IommuDriver::wait_for_request() {
    Patience patience(options_.frontend.timeout);
    do {
        if (auto done = requests_->pop()) return *done;
        if (!requests_->broken().empty()) return fail("request queue: {}", requests_->broken());
    } while (patience.wait());
    return fail("request queue: no answer in {} ms", options_.frontend.timeout.count());
}

Result<Completion> IommuDriver::submit_segments(std::span<const Segment> readable,
                                                std::span<const Segment> writable) {
    if (!add_request(readable, writable, 0))
        return fail("{}", no_room(readable.size() + writable.size()));
    requests_->kick();
    return wait_for_request();
}

Result<RawAnswer> IommuDriver::submit_raw(const RawRequest& request) {
    const auto& cuts = request.out_segments;
    const uint64_t cut_bytes = std::accumulate(cuts.begin(), cuts.end(), uint64_t{0});
    if (!cuts.empty() && cut_bytes != request.out.size())
        return fail("the segments hold {} bytes, the request has {}", cut_bytes,
                    request.out.size());
    const uint64_t in_bytes =
        std::accumulate(request.in_segments.begin(), request.in_segments.end(), uint64_t{0});
    auto block = dma_.allocate(std::max<uint64_t>(request.out.size() + in_bytes, 1));
    if (!block) return tl::unexpected(block.error());
    block->write(0, request.out);

    uint64_t at = 0;
    const auto segment = [&](uint64_t bytes) {
        at += bytes;
        return Segment{block->bus + (at - bytes), uint32_t(bytes)};
    };
    std::vector<Segment> readable, writable;
    for (const uint32_t bytes : cuts) readable.push_back(segment(bytes));
    if (cuts.empty() && !request.out.empty()) readable.push_back(segment(request.out.size()));
    for (const uint32_t bytes : request.in_segments) writable.push_back(segment(bytes));

    const auto start = Clock::now();
    const auto done = submit_segments(readable, writable);
    // Without an answer the device may still write: then the pages stay its own.
    if (!done) return tl::unexpected(done.error());
    if (!request.out.empty()) round_trips_[uint8_t(request.out[0])].add(ns_since(start));
    RawAnswer answer{done->bytes, std::vector<std::byte>(in_bytes)};
    block->read(request.out.size(), answer.in);
    release_block(memory_, *block);
    return answer;
}

ProbeAnswer IommuDriver::probe(EndpointId endpoint) {
    virtio_iommu_req_probe r{};
    r.head.type = VIRTIO_IOMMU_T_PROBE;
    r.endpoint = endpoint;
    const auto bytes = std::as_bytes(std::span(&r, 1));
    const uint32_t probe_size = config_.probe_size;
    ProbeAnswer answer;
    const uint32_t in_bytes = probe_size + uint32_t(sizeof(virtio_iommu_req_tail));
    const auto& layout = options_.layout;
    const auto raw = submit_raw({{bytes.begin(), bytes.end()},
                                 cut_out(layout, uint32_t(bytes.size())),
                                 cut_in(layout, in_bytes)});
    if (!raw) {
        answer.trouble = raw.error().message;
        return answer;
    }
    virtio_iommu_req_tail tail;
    std::memcpy(&tail, raw->in.data() + probe_size, sizeof tail);
    answer.status = status_of(raw->used_bytes, tail);
    if (!answer.ok()) return answer;
    answer.properties.assign(raw->in.begin(), raw->in.begin() + probe_size);
    auto reserved = parse_properties(answer.properties);
    if (reserved)
        answer.reserved = std::move(*reserved);
    else
        answer.trouble = reserved.error().message;
    return answer;
}

void IommuDriver::stock_event(uint16_t slot) {
    const uint64_t at = slot * kEventSlotBytes;
    zero<virtio_iommu_fault>(event_slots_, at);
    const Segment in{event_slots_.bus + at, sizeof(virtio_iommu_fault)};
    events_->add({}, std::span(&in, 1), slot);
}

Result<std::optional<FaultEvent>> IommuDriver::poll_fault(Milliseconds timeout) {
    Patience patience(timeout);
    do {
        const auto done = events_->pop();
        if (!events_->broken().empty()) return fail("event queue: {}", events_->broken());
        if (!done) continue;
        const auto fault =
            read_from<virtio_iommu_fault>(event_slots_, done->token * kEventSlotBytes);
        stock_event(uint16_t(done->token));
        events_->kick();
        return FaultEvent{fault.reason, fault.flags, fault.endpoint, Iova{fault.address},
                          done->bytes};
    } while (patience.wait());
    return std::nullopt;
}

}  // namespace viommu::guest
