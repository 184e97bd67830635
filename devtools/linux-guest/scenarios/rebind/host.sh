# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: BSD-3-Clause
about="the NIC's driver unbound and bound again, twice, with traffic after each"
transfers=3 stream_mib=8
