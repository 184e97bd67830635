// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace viommu {

/// Why a control-path operation failed, for the operator: what, where, and what to do about it.
struct Error {
    std::string message;
};

/// A value or an Error. tl::expected is C++23's std::expected for C++20.
template <class T>
using Result = tl::expected<T, Error>;

/// `return fail("socket {}: {}", path, why);` from any function that returns a Result.
template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
    return tl::unexpected<Error>(Error{fmt::format(format, std::forward<Args>(args)...)});
}

}  // namespace viommu
