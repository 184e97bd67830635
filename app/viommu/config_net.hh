// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "config_rules.hh"
#include "toml_section.hh"

namespace viommu::app {

/// A [[guest.net]] of `guest`, whose own keys have been read. What it claims is claimed of `rules`.
Net read_net(const Section& s, const Guest& guest, Rules& rules);

}  // namespace viommu::app
