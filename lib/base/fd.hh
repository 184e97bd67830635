// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <utility>

namespace viommu {

/// An owned file descriptor, or none (-1).
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
    /// Give up ownership: the caller closes it.
    [[nodiscard]] int release() { return std::exchange(fd_, -1); }
    /// Close what was held, and own `fd` instead.
    void reset(int fd = -1) {
        if (const int held = std::exchange(fd_, fd); held >= 0) close(held);
    }

  private:
    int fd_ = -1;
};

}  // namespace viommu
