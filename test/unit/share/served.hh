// SPDX-License-Identifier: BSD-3-Clause
/// A table whose readers may be other processes, served by a thread as the daemon does it.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>

#include "viommu_share.hh"

namespace viommu::share {

using namespace std::chrono_literals;

constexpr EndpointId kEndpoint = 8;
constexpr uint64_t kPage = 4096;

/// The directory of one test's socket.
class Directory {
  public:
    Directory() {
        std::string name =
            (std::filesystem::temp_directory_path() / "viommu-share.XXXXXX").string();
        EXPECT_NE(mkdtemp(name.data()), nullptr);
        path_ = name;
    }
    ~Directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string socket() const { return path_ + "/readers.sock"; }

  private:
    std::string path_;
};

class Served {
  public:
    explicit Served(Server::Config config = {}) {
        config.path = directory.socket();
        config.guest = "vm0";
        table = std::move(*table::Table::create({}));
        EXPECT_TRUE(table->add_endpoint(kEndpoint));
        EXPECT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
        auto made =
            Server::listen(config, *table, faults, [this](Server::Level, const std::string& text) {
                const std::lock_guard lock(mutex_);
                log_ += text + "\n";
            });
        EXPECT_TRUE(made) << made.error().message;
        server = std::move(*made);
        thread_ = std::thread([this] { run(); });
    }
    ~Served() { stop(); }
    /// As if the daemon died: nobody serves, the socket is closed.
    void stop() {
        if (!thread_.joinable()) return;
        const uint64_t one = 1;
        EXPECT_EQ(write(stop_.get(), &one, sizeof one), ssize_t(sizeof one));
        thread_.join();
        server.reset();
    }
    std::string log() {
        const std::lock_guard lock(mutex_);
        return log_;
    }

    Status map(uint64_t page, uint64_t gpa) {
        return table->map(1, {{page * kPage}, {page * kPage + kPage - 1}}, {gpa},
                          Access::kReadWrite);
    }
    Status unmap(uint64_t page) {
        return table->unmap(1, {{page * kPage}, {page * kPage + kPage - 1}});
    }
    /// What the writer does before it answers; nothing when that took longer than `limit`.
    std::optional<std::chrono::duration<double>> wait_for_readers(
        std::chrono::seconds limit = 20s) {
        const auto start = std::chrono::steady_clock::now();
        const auto token = table->start_grace();
        for (unsigned looks = 0; !table->grace_over(token); ++looks) {
            if (std::chrono::steady_clock::now() > start + limit) return std::nullopt;
            // Whoever yields all the time is put behind all others for long, by Linux 6.18.
            if (looks < 100)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(50us);
        }
        return std::chrono::steady_clock::now() - start;
    }

    Directory directory;
    std::unique_ptr<table::Table> table;
    xlate::FaultQueue faults;
    std::unique_ptr<Server> server;

  private:
    void run() {
        for (;;) {
            pollfd fds[] = {{stop_.get(), POLLIN, 0}, {server->fd(), POLLIN, 0}};
            ::poll(fds, 2, int(server->tick().count()));
            if (fds[0].revents != 0) return;
            server->serve();
        }
    }

    std::mutex mutex_;  // of log_
    std::string log_;
    Fd stop_{eventfd(0, EFD_CLOEXEC)};
    std::thread thread_;
};

/// Whether f() becomes true in time for a busy machine.
template <class F>
bool eventually(F&& f) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

}  // namespace viommu::share
