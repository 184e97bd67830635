// SPDX-License-Identifier: BSD-3-Clause
#include "viot_command.hh"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>

#include "viommu_viot.hh"

namespace viommu::app {
namespace {

using File = std::unique_ptr<FILE, int (*)(FILE*)>;

Result<void> write_all(const char* name, FILE* file, std::span<const std::byte> bytes) {
    const bool written = fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    if (!written || fflush(file) != 0)
        return fail("{}: cannot write: {}", name, std::strerror(errno));
    return {};
}

Result<void> write_viot(const ViotCommand& command) {
    const auto table = viot::build_table(command.iommu, command.endpoints);
    if (!table) return tl::unexpected(table.error());
    const std::span<const std::byte> bytes = command.body ? viot::body_of(*table) : *table;
    if (!command.output) {
        if (isatty(STDOUT_FILENO))
            return fail(
                "the table is binary and standard output is a terminal; "
                "name a file with --output, or redirect");
        return write_all("standard output", stdout, bytes);
    }
    const File file(fopen(command.output->c_str(), "wb"), fclose);
    if (!file) return fail("{}: cannot create: {}", *command.output, std::strerror(errno));
    return write_all(command.output->c_str(), file.get(), bytes);
}

}  // namespace

int run_viot(const ViotCommand& command) {
    const auto done = write_viot(command);
    if (done) return 0;
    fmt::print(stderr, "dpdk-viommu: {}\n", done.error().message);
    return 1;
}

}  // namespace viommu::app
