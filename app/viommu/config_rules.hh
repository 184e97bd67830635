// SPDX-License-Identifier: BSD-3-Clause
/// What the parts of a configuration owe one another: names that occur once, peers that exist.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "config.hh"
#include "toml_section.hh"

namespace viommu::app {

class Rules {
  public:
    explicit Rules(ProblemList& problems) : problems_(problems) {}

    /// `value` is taken as a `what` ("socket", "guest name"), of which there may be only one.
    void claim(const std::string& what, const std::string& value, const Place& place);

    /// Check every peer, make both ends of a pair name each other, and give the end without
    /// lcores those of the other.
    void resolve_peers(Config& config);

  private:
    struct Port {
        Guest* guest;
        Net* net;
        std::string name() const { return guest->name + "/" + net->name; }
    };
    void claim_device(const Net& net);
    void check_pair(Port& port, std::map<std::string, Port>& ports);

    ProblemList& problems_;
    std::map<std::pair<std::string, std::string>, Place> claimed_;
};

}  // namespace viommu::app
