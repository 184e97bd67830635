// SPDX-License-Identifier: BSD-3-Clause
#include "client.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "protocol.hh"
#include "rate_limit.hh"
#include "seqpacket.hh"

namespace viommu::share {
namespace {

using std::chrono::milliseconds;
using table::ReaderPage;

/// This process's page, mapped.
class OwnPage {
  public:
    static Result<OwnPage> map(int fd) {
        struct stat file {};
        const int seals = fcntl(fd, F_GET_SEALS);
        if (fstat(fd, &file) != 0 || file.st_size != sizeof(ReaderPage) || seals < 0 ||
            (seals & F_SEAL_SHRINK) == 0)
            return fail("the daemon sent something that is no reader's page");
        void* at = mmap(nullptr, sizeof(ReaderPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) return fail("a reader's page: {}", std::strerror(errno));
        OwnPage page(static_cast<ReaderPage*>(at));
        // A child of fork() must not say anything in its parent's name.
        if (madvise(at, sizeof(ReaderPage), MADV_DONTFORK) != 0)
            return fail("a reader's page: {}", std::strerror(errno));
        return page;
    }
    OwnPage(OwnPage&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
    OwnPage& operator=(OwnPage&&) = delete;
    ~OwnPage() {
        if (page_ != nullptr) munmap(page_, sizeof(ReaderPage));
    }
    ReaderPage& operator*() const { return *page_; }

  private:
    explicit OwnPage(ReaderPage* page) : page_(page) {}
    ReaderPage* page_;
};

/// The first packet.
Result<Hello> receive_hello(int socket, milliseconds timeout, std::vector<Fd>& fds) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        Hello hello;
        const Packet packet =
            receive_packet(socket, std::as_writable_bytes(std::span(&hello, 1)), &fds);
        if (packet.error == EAGAIN) {
            const auto left =
                std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
            pollfd p{socket, POLLIN, 0};
            if (left.count() <= 0 || ::poll(&p, 1, int(left.count())) == 0)
                return fail("the daemon did not answer in {} ms", timeout.count());
            continue;
        }
        if (packet.error != 0) return fail("{}", std::strerror(packet.error));
        if (packet.closed()) return fail("the daemon closed the connection");
        constexpr size_t kInEveryVersion = offsetof(Hello, refused);
        if (packet.bytes < kInEveryVersion || hello.magic != kHelloMagic)
            return fail("what answers there is not dpdk-viommu");
        if (hello.version != kVersion)
            return fail(
                "the daemon speaks version {} and this program version {}: use programs of "
                "one release",
                hello.version, kVersion);
        if (packet.bytes != sizeof hello)
            return fail("the daemon's answer has {} bytes, not {}", packet.bytes, sizeof hello);
        hello.text[sizeof hello.text - 1] = 0;
        if (hello.refused != 0) return fail("the daemon refused: {}", hello.text);
        if (fds.size() != 2) return fail("the daemon sent {} descriptors, not 2", fds.size());
        return hello;
    }
}

}  // namespace

class Client::Impl final : public table::SlotOwner, public xlate::FaultSink {
  public:
    Impl(Fd socket, const Hello& hello, table::MappedArena arena, OwnPage page)
        : guest(hello.text),
          arena_(std::move(arena)),
          page_(std::move(page)),
          socket_(std::move(socket)),
          limit_(hello.faults_per_second) {}
    ~Impl() { assert(taken_ == 0 && "a Client outlives its Readers"); }

    Result<xlate::Reader> reader(EndpointId endpoint) {
        unsigned slot;
        {
            const std::lock_guard lock(mutex_);
            slot = unsigned(std::countr_one(taken_));
            if (slot == ReaderPage::kSlots)
                return fail(
                    "all {} readers of this process are there: use one per thread and "
                    "endpoint, and destroy those that are not needed",
                    ReaderPage::kSlots);
            set_taken(taken_ | uint64_t{1} << slot);
        }
        // From here on the Section gives the slot back.
        table::Section section(view().header->reader_token, *page_, slot, *this);
        return xlate::Reader::create(view(), std::move(section), *this, endpoint);
    }

    void give_back(unsigned slot) noexcept override {
        const std::lock_guard lock(mutex_);
        set_taken(taken_ & ~(uint64_t{1} << slot));
    }

    bool push(const xlate::Fault& fault) noexcept override {
        if (limit_.take() && send(fault)) return true;
        lost_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }

    bool connected() const noexcept {
        if (gone_.load(std::memory_order_relaxed)) return false;
        pollfd p{socket_.get(), POLLRDHUP, 0};
        if (::poll(&p, 1, 0) == 0) return true;
        if ((p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) == 0) return true;
        gone_.store(true, std::memory_order_relaxed);
        return false;
    }

    int fd() const noexcept { return socket_.get(); }
    const table::View& view() const noexcept { return arena_.view(); }
    uint64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

    const std::string guest;

  private:
    /// With the mutex held. The page says which slots the writer has to look at: before the first
    /// section of one, and with the same argument as its count (Q1).
    void set_taken(uint64_t taken) noexcept {
        taken_ = taken;
        if (getpid() == pid_) (*page_).taken().store(taken, std::memory_order_release);
    }

    bool send(const xlate::Fault& fault) noexcept {
        const FaultMessage m{.endpoint = fault.endpoint,
                             .address = fault.address.value,
                             .reason = uint8_t(fault.reason),
                             .access = uint8_t(fault.access),
                             .lost = lost()};
        return send_packet(socket_.get(), std::as_bytes(std::span(&m, 1))) == 0;
    }

    table::MappedArena arena_;
    OwnPage page_;
    Fd socket_;
    const pid_t pid_ = getpid();
    std::mutex mutex_;
    uint64_t taken_ = 0;  // ours; the page's is only a copy
    RateLimit limit_;
    std::atomic<uint64_t> lost_{0};
    mutable std::atomic<bool> gone_{false};
};

Result<Client> Client::connect(const std::string& path, milliseconds timeout) {
    auto socket = connect_to(path, timeout);
    if (!socket) return tl::unexpected(socket.error());
    std::vector<Fd> fds;
    const auto hello = receive_hello(socket->get(), timeout, fds);
    if (!hello) return fail("readers' socket {}: {}", path, hello.error().message);
    auto arena = table::MappedArena::open(fds[0].get());
    if (!arena) return fail("readers' socket {}: {}", path, arena.error().message);
    auto page = OwnPage::map(fds[1].get());
    if (!page) return fail("readers' socket {}: {}", path, page.error().message);
    return Client(
        std::make_unique<Impl>(std::move(*socket), *hello, std::move(*arena), std::move(*page)));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

Result<xlate::Reader> Client::reader(EndpointId endpoint) { return impl_->reader(endpoint); }
bool Client::connected() const noexcept { return impl_->connected(); }
int Client::fd() const noexcept { return impl_->fd(); }
uint64_t Client::lost_faults() const noexcept { return impl_->lost(); }
const std::string& Client::guest() const noexcept { return impl_->guest; }
const table::View& Client::view() const noexcept { return impl_->view(); }

}  // namespace viommu::share
