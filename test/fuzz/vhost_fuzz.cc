// SPDX-License-Identifier: BSD-3-Clause
/// Fuzz target: a vhost-user frontend that sends what it likes, with real file descriptors, to the
/// whole daemon behind a real librte_vhost; and a guest that writes what it likes to its rings
/// meanwhile. The input is a socket and a sequence of messages; make_seeds.py writes the sequences
/// of Cloud Hypervisor and QEMU.
///
/// Required: no crash; every message that asks for an answer is answered, or the connection closed,
/// in time; no file descriptor is left but those that librte_vhost is known to lose;
/// afterwards a guest that behaves is served.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cerrno>

#include "../unit/vhost/frontend.hh"
#include "vhost_server.hh"

namespace viommu::fuzz {
namespace {

using namespace wire;
using vhost::test::bytes_of;
using vhost::test::Fd;
using vhost::test::Frontend;

using Bytes = std::vector<std::byte>;

/// What librte_vhost takes at most: more, and it drops the connection together with the message.
constexpr size_t kLibraryPayload = 256 + 12;
constexpr size_t kLibraryFds = 8;

constexpr uint64_t kUva = 0x7f00'0000'0000;
constexpr uint64_t kRamBytes = 1 << 20;

/// A guest's RAM: each input begins with zeroes.
class Ram {
  public:
    Ram() : fd(memfd_create("fuzz-ram", MFD_CLOEXEC)) {
        require(fd >= 0 && ftruncate(fd, kRamBytes) == 0, "no memory");
        void* at = mmap(nullptr, kRamBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        require(at != MAP_FAILED, "no memory");
        bytes_ = static_cast<uint8_t*>(at);
    }
    void clear() { std::memset(bytes_, 0, 0x20000); }
    /// Not instrumented: the device reads it at the same time, and that is the point.
    __attribute__((no_sanitize("thread"), noinline)) void store(uint64_t at, uint64_t value,
                                                                size_t bytes) {
        for (size_t i = 0; i < bytes; ++i)
            static_cast<volatile uint8_t*>(bytes_)[(at + i) % kRamBytes] = uint8_t(value >> 8 * i);
    }
    uint16_t load16(uint64_t at) const { return uint16_t(bytes_[at] | bytes_[at + 1] << 8); }

    const Fd fd;

  private:
    uint8_t* bytes_;
};

class Session {
  public:
    explicit Session(Input in) : in_(in), ram_(ram()), which_(in_.below(4) % 3) {
        ram_.clear();
        for (Fd& kick : kicks_) kick = vhost::test::make_eventfd();
        connect();
    }

    void run() {
        for (unsigned step = 0; !in_.empty() && step < 64; ++step) one_step();
        synchronise();
    }
    unsigned leaks() const { return leaks_; }

  private:
    static Ram& ram() {
        static Ram& it = *new Ram;
        return it;
    }

    void one_step() {
        const uint8_t what = in_.take();
        if (what < 0xc0) return message(what);
        switch (what % 8) {
            case 0:
            case 1:
            case 2: return offer();
            case 3: return ram_.store(in_.take<uint16_t>(), in_.take<uint16_t>(), 2);
            case 4: eventfd_write(kicks_[in_.below(2)], 1); return;
            case 5: return another();
            case 6: return raw();
            case 7: synchronise(); return;
        }
    }

    static bool trace() {
        static const bool it = std::getenv("VIOMMU_FUZZ_TRACE") != nullptr;
        return it;
    }

    // --- connections -----------------------------------------------------------------------------

    void connect() {
        frontend_.emplace(Server::get().socket(which_));
        require(frontend_->fd() >= 0, "no connection to a listening socket");
        open_ = true;
        owed_ = 0;
    }
    /// A second one while the first is there, or in its place.
    void another() {
        const uint8_t how = in_.take();
        if (how % 4 == 0) {
            const Frontend second(Server::get().socket(which_));  // comes and goes
        } else {
            if (how % 4 == 1) synchronise();
            if (how % 4 == 2) which_ = in_.below(3);
            frontend_->disconnect();
            connect();
        }
    }
    /// Bytes that are no message, or not all of one. The server waits a second for the rest, so the
    /// connection ends here.
    void raw() {
        const Bytes bytes = in_.bytes(in_.below(64));
        frontend_->send_raw(bytes);
        frontend_->disconnect();
        connect();
    }

    /// The server has read everything: it answers what is asked, or has closed.
    void synchronise() {
        if (!open_) return;
        if (trace()) fmt::print(stderr, "synchronise\n");
        if (!frontend_->send(VHOST_USER_GET_FEATURES)) {
            open_ = false;
            return;
        }
        ++owed_;
        while (owed_ > 0) receive();
    }
    void receive() {
        // On a machine that is busy it may be long until the server runs; a minute means never.
        pollfd p{.fd = frontend_->fd(), .events = POLLIN, .revents = 0};
        int ready;
        do {  // libFuzzer's own timer interrupts it
            ready = ::poll(&p, 1, 60'000);
        } while (ready < 0 && errno == EINTR);
        require(ready == 1, "no answer, and the connection is open");
        const auto reply = frontend_->receive();
        if (reply) {
            if (trace())
                fmt::print(stderr, "  reply to {}, {} bytes\n", reply->request,
                           reply->payload.size());
            // (Above the four low bits, librte_vhost sends back what it got.)
            require((reply->flags & 15) == (kVhostUserVersion | kVhostUserReply),
                    "a reply with flags {:#x}", reply->flags);
            --owed_;
            return;
        }
        // Closed is an answer, too; silence is not.
        require(frontend_->is_closed(), "half an answer, and the connection is open");
        owed_ = 0;
        open_ = false;
    }

    // --- messages --------------------------------------------------------------------------------

    struct Message {
        uint32_t request = 0;
        uint32_t flags = kVhostUserVersion;
        Bytes payload{};
        std::optional<uint32_t> claimed{};
        std::vector<int> fds{};
    };

    uint32_t queue() {
        return in_.one_of<uint32_t>({0, 1, 0, 1, 0, 1, 2, 127, 128, 255, 256, ~0u});
    }
    Bytes state(uint32_t index, uint32_t num) {
        return bytes_of(vhost_user_vring_state{.index = index, .num = num});
    }
    Bytes u64(uint64_t value) { return bytes_of(value); }

    void message(uint8_t kind) {
        if (!open_) return;
        constexpr uint32_t kKinds[] = {1,  2,  3,  4,  5,  8,  9,  10, 11, 12, 13, 14,
                                       15, 16, 17, 18, 21, 24, 25, 6,  7,  20, 22, 26,
                                       31, 32, 33, 34, 36, 37, 38, 39, 40, 0,  43, 0xffffffff};
        Message m;
        m.request = kKinds[kind % std::size(kKinds)];
        fill(m);
        if (in_.take() & 1) m.flags |= kVhostUserNeedReply;
        if (const uint8_t odd = in_.take(); odd >= 232) distort(m, odd);
        if (const uint8_t odd = in_.take(); odd >= 232) other_fds(m);
        send(m);
    }

    void fill(Message& m) {
        switch (m.request) {
            case VHOST_USER_SET_FEATURES: {
                constexpr uint64_t kGood = uint64_t{1} << 32 | uint64_t{1} << 30;
                uint64_t features = in_.one_of<uint64_t>(
                    {kGood, kGood | uint64_t{1} << 33, kGood | uint64_t{1} << 28, uint64_t{1} << 32,
                     kGood | uint64_t{1} << 29, kGood | uint64_t{1} << 34,
                     kGood | uint64_t{1} << 35 | uint64_t{3} << 28, kGood | 0x7f, 0, ~uint64_t{0}});
                if (in_.one_in(16)) features ^= uint64_t{1} << in_.take() % 64;
                m.payload = u64(features);
                break;
            }
            case VHOST_USER_SET_PROTOCOL_FEATURES:
                m.payload = u64(in_.one_of<uint64_t>({0x229, 0x229, 0, 0x2ff, ~uint64_t{0}}));
                break;
            case VHOST_USER_SET_MEM_TABLE: mem_table(m); break;
            case VHOST_USER_SET_VRING_NUM:
                m.payload = state(queue(), in_.one_of<uint32_t>(
                                               {16, 256, 1, 2, 3, 0, 1024, 32768, 65536, ~0u}));
                break;
            case VHOST_USER_SET_VRING_ADDR: {
                const uint32_t q = queue();
                const auto part = [&](uint64_t offset) {
                    const uint64_t good = kUva + (q % 2) * 0x4000 + offset;
                    return in_.one_of<uint64_t>({good, good, good, good, good, good, good + 0x1000,
                                                 good + 8, good + 1, 0, ~uint64_t{0} - 15,
                                                 kUva + kRamBytes - 64, kUva + kRamBytes});
                };
                const uint64_t desc = part(0), avail = part(0x1000), used = part(0x2000);
                m.payload = bytes_of(vhost_user_vring_addr{.index = q, .flags = in_.below(2),
                                                           .desc = desc, .used = used,
                                                           .avail = avail, .log = 0});
                break;
            }
            case VHOST_USER_SET_VRING_BASE:
                m.payload =
                    state(queue(), in_.one_of<uint32_t>({0, 0, 1, 0xffff, 0x80008000, ~0u}));
                break;
            case VHOST_USER_GET_VRING_BASE: m.payload = state(queue(), 0); break;
            case VHOST_USER_SET_VRING_ENABLE: m.payload = state(queue(), in_.below(3)); break;
            case VHOST_USER_SET_VRING_KICK:
            case VHOST_USER_SET_VRING_CALL:
            case VHOST_USER_SET_VRING_ERR: {
                const uint32_t q = queue();
                const bool none = in_.one_in(8);
                m.payload = u64(q | (none ? kVhostUserVringNoFd : 0));
                if (!none) m.fds = {kicks_[q % 2]};
                break;
            }
            case VHOST_USER_SET_BACKEND_REQ_FD: m.fds = {own(socket_end())}; break;
            case VHOST_USER_GET_CONFIG:
            case VHOST_USER_SET_CONFIG: {
                const uint32_t offset = in_.one_of<uint32_t>({0, 36, 4, 255, 0xfff, 0x1000, ~0u});
                const uint32_t size = in_.one_of<uint32_t>({40, 1, 4, 60, 0, 256, 257, ~0u});
                m.payload = bytes_of(vhost_user_config_header{offset, size, in_.below(2)});
                const size_t body = in_.one_in(8) ? in_.take() : std::min(size, 256u);
                m.payload.resize(m.payload.size() + body, std::byte(in_.below(3)));
                break;
            }
            case VHOST_USER_ADD_MEM_REG:
            case VHOST_USER_REM_MEM_REG: {
                const Bytes one = region(in_.below(10));
                m.payload = u64(0);
                m.payload.insert(m.payload.end(), one.begin(), one.end());
                if (m.request == VHOST_USER_ADD_MEM_REG) m.fds = {ram_.fd};
                break;
            }
            case VHOST_USER_SET_LOG_BASE: {
                m.payload = u64(in_.one_of<uint64_t>({0x1000, 0, 1, kRamBytes, ~uint64_t{0}}));
                const Bytes offset = u64(in_.one_of<uint64_t>({0, 0x800, kRamBytes, ~uint64_t{0}}));
                m.payload.insert(m.payload.end(), offset.begin(), offset.end());
                m.fds = {ram_.fd};
                break;
            }
            case VHOST_USER_SET_LOG_FD: m.fds = {kicks_[0]}; break;
            case VHOST_USER_GET_MAX_MEM_SLOTS:
            case VHOST_USER_GET_FEATURES:
            case VHOST_USER_SET_OWNER:
            case VHOST_USER_RESET_OWNER:
            case VHOST_USER_GET_PROTOCOL_FEATURES:
            case VHOST_USER_GET_QUEUE_NUM: break;
            default:
                m.payload = in_.bytes(in_.below(64));
                if (in_.one_in(4)) m.fds = {ram_.fd};
        }
    }

    /// The i-th of memory that is 4 GiB apart. One field may be wrong.
    Bytes region(uint64_t i) {
        vhost_user_mem_region r{.guest_phys_addr = i << 32,
                                .memory_size = kRamBytes,
                                .userspace_addr = kUva + (i << 32),
                                .mmap_offset = 0};
        const uint8_t b = in_.take();
        const uint64_t value = in_.one_of<uint64_t>({0, 0x1000, kRamBytes, uint64_t{1} << 32,
                                                     ~uint64_t{0}, ~uint64_t{0xfff}, 0x800});
        if (b == 0xf0) r.guest_phys_addr = value;
        if (b == 0xf1) r.memory_size = value;
        if (b == 0xf2) r.userspace_addr = value;
        if (b == 0xf3) r.mmap_offset = value;
        return bytes_of(r);
    }
    void mem_table(Message& m) {
        const uint32_t count = in_.one_of<uint32_t>({1, 1, 1, 2, 0, 8, 9, ~0u});
        Bytes regions;
        for (uint32_t i = 0; i < std::min(count, 10u); ++i) {
            const Bytes bytes = region(i);
            regions.insert(regions.end(), bytes.begin(), bytes.end());
            if (i < 8) m.fds.push_back(ram_.fd);
        }
        m.payload = bytes_of(vhost_user_mem_header{.num_regions = count, .padding = 0}, regions);
    }

    void distort(Message& m, uint8_t how) {
        switch (how % 8) {
            case 0: {
                const auto n = std::min<size_t>(m.payload.size(), in_.take());
                m.payload.erase(m.payload.end() - std::ptrdiff_t(n), m.payload.end());
                break;
            }
            case 1: m.payload.resize(m.payload.size() + in_.take(), std::byte{0xff}); break;
            case 2: m.claimed = uint32_t(m.payload.size() + 1 + in_.take()); break;
            case 3: m.claimed = in_.one_of<uint32_t>({~0u, 0x80000000, 4096, 600}); break;
            case 4:
            case 5:
                if (!m.payload.empty())
                    m.payload[in_.take() % m.payload.size()] ^= std::byte(in_.take());
                break;
            case 6: m.flags ^= in_.take(); break;
            case 7: m.payload.resize(in_.take<uint16_t>() % 1200, std::byte{1}); break;
        }
    }
    void other_fds(Message& m) {
        m.fds.clear();
        for (unsigned n = in_.one_of<unsigned>({0, 1, 1, 2, 3, 8, 9, 16}); n > 0; --n) {
            // Not the connection itself: a server that holds both ends of it never sees its end.
            switch (in_.below(4)) {
                case 0: m.fds.push_back(ram_.fd); break;
                case 1: m.fds.push_back(kicks_[0]); break;
                case 2: m.fds.push_back(own(memfd_create("empty", MFD_CLOEXEC))); break;
                case 3: m.fds.push_back(own(socket_end())); break;
            }
        }
    }
    int own(int fd) { return owned_.emplace_back(fd); }
    int socket_end() {
        int ends[2];
        require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "no socketpair");
        own(ends[1]);
        return ends[0];
    }

    void send(const Message& m) {
        const bool partial = m.claimed && *m.claimed > m.payload.size();
        const bool surplus = m.claimed && *m.claimed < m.payload.size();
        if (trace())
            fmt::print(stderr, "socket {}: request {} flags {:#x} {} bytes (claims {}) {} fds\n",
                       which_, m.request, m.flags, m.payload.size(),
                       m.claimed.value_or(uint32_t(m.payload.size())), m.fds.size());
        if (library_loses_fds(m)) leaks_ += unsigned(std::min(m.fds.size(), kLibraryFds));
        if (!frontend_->send(m.request, m.payload, m.fds, m.flags, m.claimed)) {
            open_ = false;
            return;
        }
        owned_.clear();
        if (partial || surplus) {  // what follows would be read as part of this, or the reverse
            frontend_->disconnect();
            return connect();
        }
        if ((m.flags & kVhostUserNeedReply) != 0) {
            ++owed_;
            receive();
        } else if (answers(m.request)) {
            ++owed_;
        }
    }
    static bool answers(uint32_t request) {
        constexpr uint32_t kAnswered[] = {
            VHOST_USER_GET_FEATURES,    VHOST_USER_GET_PROTOCOL_FEATURES, VHOST_USER_GET_QUEUE_NUM,
            VHOST_USER_GET_VRING_BASE,  VHOST_USER_GET_CONFIG};
        return std::ranges::find(kAnswered, request) != std::end(kAnswered);
    }
    /// Before it shows a message to us, librte_vhost gives up on some connections without closing
    /// what came with the message: truncated control data, more bytes than it has room for, or a
    /// queue beyond its 256.
    static bool library_loses_fds(const Message& m) {
        const size_t size = m.claimed.value_or(uint32_t(m.payload.size()));
        if (m.fds.size() > kLibraryFds || size > kLibraryPayload || size > m.payload.size())
            return true;
        switch (m.request) {
            case VHOST_USER_SET_VRING_NUM:
            case VHOST_USER_SET_VRING_ADDR:
            case VHOST_USER_SET_VRING_BASE:
            case VHOST_USER_GET_VRING_BASE:
            case VHOST_USER_SET_VRING_ENABLE:
            case VHOST_USER_SET_VRING_KICK:
            case VHOST_USER_SET_VRING_CALL:
            case VHOST_USER_SET_VRING_ERR: {
                uint32_t index = 0;  // garbage of an earlier message where this one is too short
                if (size < sizeof index) return true;
                std::memcpy(&index, m.payload.data(), sizeof index);
                return index >= 256;
            }
            case 32: return true;  // SET_INFLIGHT_FD
        }
        return false;
    }

    // --- the guest -------------------------------------------------------------------------------

    /// A descriptor chain, mostly a right one, where mem_table() and SET_VRING_ADDR put a ring.
    void offer() {
        const unsigned q = in_.below(2);
        const uint64_t desc = q * 0x4000, avail = desc + 0x1000, data = 0x10000;
        const uint8_t how = in_.take();
        const uint16_t idx = ram_.load16(avail + 2);
        const uint16_t head = how & 15;
        const Bytes request = in_.bytes(how < 0x80 ? 36 : 72);
        for (size_t i = 0; i < request.size(); ++i) ram_.store(data + i, uint8_t(request[i]), 1);
        put_desc(desc + 16 * head, data, request.empty() ? 20 : uint32_t(request.size()), 1,
                 uint16_t((head + 1) % 16));
        put_desc(desc + 16 * ((head + 1) % 16), data + 0x1000, 512, 2, 0);
        ram_.store(avail + 4 + 2 * (idx % 16), head, 2);
        ram_.store(avail + 2, uint16_t(idx + 1), 2);
        eventfd_write(kicks_[q], 1);
    }
    void put_desc(uint64_t at, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next) {
        ram_.store(at, addr, 8);
        ram_.store(at + 8, len, 4);
        ram_.store(at + 12, flags, 2);
        ram_.store(at + 14, next, 2);
    }

    Input in_;
    Ram& ram_;
    unsigned which_;
    Fd kicks_[2];
    std::vector<Fd> owned_;  // of the message that is being made
    std::optional<Frontend> frontend_;
    bool open_ = false;
    int owed_ = 0;  // answers that have not come
    unsigned leaks_ = 0;
};

/// A connection that ended before it was accepted is accepted all the same, and its messages are
/// read. Sockets accept in order: who is answered, or turned away, came after all those.
void accept_all() {
    for (unsigned i = 0; i < 3; ++i) {
        Frontend last(Server::get().socket(i));
        if (last.send(VHOST_USER_GET_FEATURES) && !last.receive())
            require(last.is_closed(), "no answer, and the connection is open");
    }
}

}  // namespace
}  // namespace viommu::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    viommu::fuzz::Server::get();
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace viommu::fuzz;
    unsigned leaks;
    {
        Session session(Input(data, size));
        session.run();
        leaks = session.leaks();
    }
    accept_all();
    Server::get().check({data, size}, leaks);
    return 0;
}
