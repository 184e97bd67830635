// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <utility>

#include "viommu_base.hh"

namespace viommu::guest {

/// A file descriptor with an owner.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    ~Fd() { reset(); }
    Fd(Fd&& other) noexcept : fd_(other.release()) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    /// Closes what was held.
    void reset(int fd = -1);

  private:
    int fd_ = -1;
};

/// A non-blocking eventfd, as a VMM makes for kicks and calls.
Result<Fd> make_eventfd();
/// Signal `eventfd`; a counter that is full already has the effect wanted.
void signal_eventfd(int eventfd);
/// Take what was signalled; false: nothing was.
bool drain_eventfd(int eventfd);

}  // namespace viommu::guest
