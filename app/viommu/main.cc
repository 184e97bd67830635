// SPDX-License-Identifier: BSD-3-Clause
#include <cstdio>

#include "arguments.hh"
#include "serve.hh"
#include "viot_command.hh"

namespace viommu::app {
namespace {

int run(const PrintCommand& command) {
    std::fputs(command.text.c_str(), command.exit_status == 0 ? stdout : stderr);
    return command.exit_status;
}
int run(const ViotCommand& command) { return run_viot(command); }
int run(const ServeCommand& command) { return run_serve(command); }

}  // namespace
}  // namespace viommu::app

int main(int argc, char** argv) {
    const auto command = viommu::app::parse_arguments(argc, argv);
    return std::visit([](const auto& c) { return viommu::app::run(c); }, command);
}
